//! A list, as a file.

use axum::{
    body::Body,
    extract::Query,
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use doorbell::{
    Error,
    operate::{Filter, Operator, Page},
    written::timestamp::rfc3339,
};
use futures::stream;
use serde_json::json;

use super::messages::asked;
use crate::{app::Visit, page::Refusal};

/// Messages of one look.
const AT_A_TIME: u32 = 1000;
/// A file has no more lines.
const LINES_MAX: usize = 100_000;

/// What is still to be sent.
struct Rest {
    reader: Operator,
    filter: Filter,
    page: Page,
    sent: usize,
}

/// Messages by a filter, a line of JSON each as `doorbell list --json` has them; the last line says where to go on, if these are not
/// all.
pub(crate) async fn send(visit: Visit, Query(query): Query<Vec<(String, String)>>) -> Result<Response, Refusal> {
    let (pairs, after) = asked(&visit, query)?;
    let filter = pairs.filter().map_err(Refusal::wrong)?;
    let reader = visit.app.reader().clone();
    // The first of them here, where what is wrong still has a page.
    let page = reader.list(&filter, None, AT_A_TIME, after.as_deref()).await?;
    let rest = Rest { reader, filter, page, sent: 0 };
    let lines = stream::try_unfold(Some(rest), |rest| async {
        let Some(mut rest) = rest else { return Ok::<_, Error>(None) };
        rest.sent += rest.page.messages.len();
        let mut text = rest.page.messages.iter().map(|row| json!(row).to_string() + "\n").collect::<String>();
        let Some(next) = rest.page.next.take() else { return Ok(Some((text, None))) };
        if rest.page.looked_until.is_some() || rest.sent >= LINES_MAX {
            let looked_until = rest.page.looked_until.map(rfc3339);
            text += &(json!({ "next": next, "looked_until": looked_until }).to_string() + "\n");
            return Ok(Some((text, None)));
        }
        rest.page = rest.reader.list(&rest.filter, None, AT_A_TIME, Some(&next)).await?;
        Ok(Some((text, Some(rest))))
    });
    let headers =
        [(CONTENT_TYPE, "application/x-ndjson"), (CONTENT_DISPOSITION, "attachment; filename=\"messages.ndjson\"")];
    Ok((headers, Body::from_stream(lines)).into_response())
}
