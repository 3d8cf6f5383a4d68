//! JSONB as text, both ways, without building a tree.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

type BoxError = Box<dyn std::error::Error + Sync + Send>;

/// JSON text sent as JSONB: the binary format is a version byte and the text.
#[derive(Debug)]
pub(super) struct JsonbText<S>(pub(super) S);

impl<S: AsRef<str> + std::fmt::Debug> ToSql for JsonbText<S> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        out.put_u8(1);
        out.put_slice(self.0.as_ref().as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

/// JSONB received as text. What serde_json cannot read is found per message by the handler's decoder, never here.
#[derive(Debug)]
pub(super) struct JsonbString(pub(super) Box<str>);

impl<'a> FromSql<'a> for JsonbString {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        match raw.split_first() {
            Some((1, text)) => Ok(Self(std::str::from_utf8(text)?.into())),
            _ => Err("unknown JSONB version".into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
}
