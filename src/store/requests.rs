//! Requests: publishing them, asking for their answers, replying.

use std::time::Duration;

use tokio_postgres::{
    Row, Transaction,
    types::{ToSql, Type},
};

use super::{
    Store,
    fence::{Claim, Fence},
    json::{JsonbString, JsonbText},
};
use crate::{
    error::Result,
    message::{Answer, Delivery, Message, MessageId, Request, storable_ms},
    rows::WaitingRequest,
};

const REQUEST: &str = "select id, reply_to from integration.request($1, $2, $3, $4, $5::bigint * interval '1 ms', $6, $7, $8, $9, \
        $10, $11)";
const CHANNEL: &str = "select integration.reply_channel($1)";
const ANSWERS: &str = "select id, state, reply, reason from integration.answers($1, $2)";
const WAITING: &str = "select * from integration.waiting_requests order by expires_at, id limit $1";
const COUNT_WAITING: &str = "select r.target_app, count(*) from integration.waiting_requests r group by r.target_app";
const GIVE_UP: &str = "select state, reply, reason from integration.give_up($1, $2)";
// With what is done and has no reply: of one ordering key nothing is completed before what comes before it.
const END: &str = "select case when u.reply is null then integration.complete(u.id, u.attempt, $1::text, u.created_at) \
        else integration.reply(u.id, u.attempt, $1::text, u.reply::jsonb, u.created_at) end \
    from unnest($2::bigint[], $3::integer[], $4::timestamptz[], $5::text[]) u (id, attempt, created_at, reply), \
        set_config('idle_in_transaction_session_timeout', $6, true)";
const REPLY: &str = "select integration.reply($1, $2, $3, $4, $5)";

impl Store {
    /// Publishes a request. Nobody takes it any more after `within`.
    pub(crate) async fn request(
        &self,
        source: &str,
        message: &Message,
        reply_to: &str,
        within: Duration,
    ) -> Result<Request> {
        let (payload, headers) = (JsonbText(message.payload.get()), message.headers_json().map(JsonbText));
        let max_retries = message.max_retries.map(|retries| i32::try_from(retries).unwrap_or(i32::MAX));
        let params: [&(dyn ToSql + Sync); 11] = [
            &source,
            &message.target,
            &message.record_type,
            &payload,
            &storable_ms(within),
            &message.priority,
            &headers,
            &message.ordering_key,
            &message.dedup_key,
            &max_retries,
            &reply_to,
        ];
        let row = self.query_one("publish a request", REQUEST, &params).await?;
        Ok(Request { id: row.try_get("id")?, reply_to: row.try_get("reply_to")? })
    }

    /// For whose answers somebody waits.
    pub(crate) async fn waiting_requests(&self, limit: u32) -> Result<Vec<WaitingRequest>> {
        let rows = self.query("list requests", WAITING, &[&i64::from(limit)]).await?;
        let request = |row: &Row| {
            Ok(WaitingRequest {
                id: row.try_get("id")?,
                source: row.try_get("source_app")?,
                target: row.try_get("target_app")?,
                record_type: row.try_get("record_type")?,
                status: row.try_get::<_, &str>("status")?.parse()?,
                attempt: row.try_get("attempt")?,
                created_at: row.try_get("created_at")?,
                expires_at: row.try_get("expires_at")?,
                owner: row.try_get("owner")?,
            })
        };
        rows.iter().map(request).collect()
    }

    pub(crate) async fn count_waiting_requests(&self) -> Result<Vec<(String, i64)>> {
        let rows = self.query("count requests", COUNT_WAITING, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Where the process whose requests begin so is told of their ends.
    pub(crate) async fn reply_channel(&self, reply_to: &str) -> Result<String> {
        Ok(self.query_one("ask for the channel of replies", CHANNEL, &[&reply_to]).await?.try_get(0)?)
    }

    /// Those of the requests that have ended.
    pub(crate) async fn answers(
        &self,
        ids: &[MessageId],
        reply_tos: &[&str],
    ) -> Result<Vec<(MessageId, Answer<Box<str>>)>> {
        let rows = self.query("look for answers", ANSWERS, &[&ids, &reply_tos]).await?;
        let mut answers = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(answer) = read(row)? {
                answers.push((row.try_get("id")?, answer));
            }
        }
        Ok(answers)
    }

    /// Nobody waits for it any more: it is cancelled if it waits. Returns what became of it; `Late`: it has not ended.
    pub(crate) async fn give_up(&self, request: &Request) -> Result<Answer<Box<str>>> {
        let row = self.query_one("give up a request", GIVE_UP, &[&request.id, &request.reply_to]).await?;
        Ok(read(&row)?.unwrap_or_else(|| Answer::Late(request.clone())))
    }

    /// Completes a request with its reply, JSON text.
    pub(crate) async fn reply(&self, delivery: &Delivery, reply: &str) -> Result<()> {
        let reply = JsonbText(reply);
        let params: [&(dyn ToSql + Sync); 5] =
            [&delivery.id, &delivery.attempt, &&*delivery.owner, &reply, &delivery.created_at];
        self.query("reply to a request", REPLY, &params).await.map(drop)
    }

    /// Completes messages in one transaction, requests with their replies.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) where one of them is not the owner's any more: nothing was done then.
    pub(crate) async fn end(&self, owner: &str, done: &[Done<'_>]) -> Result<()> {
        let (Fence { ids, attempts, created }, replies) = columns(done);
        self.query("reply to requests", END, &[&owner, &ids, &attempts, &created, &replies, &self.limit()])
            .await
            .map(drop)
    }

    /// As long as the completion of what transactional handlers did may wait for the commit.
    fn limit(&self) -> String {
        self.deadline.as_millis().max(1).to_string()
    }

    /// The same, in a handler's transaction.
    pub(crate) async fn end_in(&self, tx: &Transaction<'_>, owner: &str, done: &[Done<'_>]) -> Result<()> {
        let (Fence { ids, attempts, created }, replies) = columns(done);
        let types =
            [Type::TEXT, Type::INT8_ARRAY, Type::INT4_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::TEXT_ARRAY, Type::TEXT];
        let limit = self.limit();
        let params: [&(dyn ToSql + Sync); 6] = [&owner, &ids, &attempts, &created, &replies, &limit];
        let typed: Vec<_> = params.into_iter().zip(types).collect();
        Ok(tx.query_typed(&self.sql(END), &typed).await.map(drop)?)
    }
}

/// A message that is done, and what was replied.
pub(crate) type Done<'a> = (Claim, Option<&'a str>);

fn columns<'a>(done: &[Done<'a>]) -> (Fence, Vec<Option<&'a str>>) {
    let mut fence = Fence::default();
    done.iter().for_each(|(claim, _)| fence.push(*claim));
    (fence, done.iter().map(|(_, reply)| *reply).collect())
}

fn read(row: &tokio_postgres::Row) -> Result<Option<Answer<Box<str>>>> {
    let state: Option<&str> = row.try_get("state")?;
    let reply = row.try_get::<_, Option<JsonbString>>("reply")?.map(|JsonbString(text)| text);
    Ok(Answer::of(state.unwrap_or_default(), reply, row.try_get("reason")?))
}
