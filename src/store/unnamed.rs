//! Statements without a name, for poolers that hand a session on with what others have prepared in it.

use bytes::BytesMut;
use tokio_postgres::types::{ToSql, Type};

/// The types of our parameters. What the driver learns from a prepared statement must be said with an unnamed one.
const TYPES: [Type; 13] = [
    Type::TEXT,
    Type::INT8,
    Type::INT4,
    Type::JSONB,
    Type::BOOL,
    Type::FLOAT8,
    Type::TIMESTAMPTZ,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::BOOL_ARRAY,
    Type::FLOAT8_ARRAY,
];

/// The parameters, each with the type that it can be sent as: of those above, no value of ours fits two.
pub(super) fn typed<'a>(params: &[&'a (dyn ToSql + Sync)]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let mut scratch = BytesMut::new();
    let mut fits = |param: &(dyn ToSql + Sync), ty: &Type| {
        scratch.clear();
        param.to_sql_checked(ty, &mut scratch).is_ok()
    };
    params
        .iter()
        .map(|&param| {
            let ty = TYPES.iter().find(|ty| fits(param, ty));
            debug_assert!(ty.is_some(), "a parameter of a type that is not among ours: {param:?}");
            // The driver refuses what does not fit.
            (param, ty.cloned().unwrap_or(Type::TEXT))
        })
        .collect()
}
