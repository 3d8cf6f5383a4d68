//! The field in the head of every page.

use axum::{
    extract::Query,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use crate::{filter::NAMES, words::in_address};

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    q: String,
}

/// To a message by its number, to messages by `type:order.placed status:failed`, else to targets by a part of their names.
pub(crate) async fn go(Query(wanted): Query<Wanted>) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, place(wanted.q.trim()))]).into_response()
}

fn place(wanted: &str) -> String {
    if wanted.parse::<i64>().is_ok() {
        return format!("message?id={wanted}");
    }
    let pairs: Option<Vec<(&str, &str)>> =
        wanted.split_whitespace().map(|word| word.split_once(':').filter(|(name, _)| NAMES.contains(name))).collect();
    match pairs {
        Some(pairs) if !pairs.is_empty() => {
            let pairs: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{name}={}", in_address(value))).collect();
            format!("messages?{}", pairs.join("&"))
        }
        _ => format!("targets?named={}", in_address(wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_the_field_says_where_it_leads() {
        for (wanted, leads) in [
            ("42", "message?id=42"),
            ("status:failed type:a&b", "messages?status=failed&type=a%26b"),
            ("billing", "targets?named=billing"),
            ("http://x", "targets?named=http%3A%2F%2Fx"),
            ("", "targets?named="),
        ] {
            assert_eq!(place(wanted), leads);
        }
    }
}
