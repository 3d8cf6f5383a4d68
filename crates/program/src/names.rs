//! Names of targets that nothing knows: most are typed wrong.

use doorbell::Broker;

use crate::{
    exit::{Exit, Failure},
    output,
};

/// Says on stderr that no message, setting or process names this target, and which one may be meant. Returns whether it is so.
pub(crate) async fn is_unknown(broker: &Broker, target: Option<&str>) -> Result<bool, Failure> {
    let Some(target) = target else { return Ok(false) };
    let unknown = unknown(broker, target).await?;
    if let Some(what) = &unknown {
        eprintln!("{}", output::printable(what));
    }
    Ok(unknown.is_some())
}

/// Refuses a target that nothing knows, unless it is said to be new.
pub(crate) async fn must_be_known(broker: &Broker, target: &str, new: bool) -> Result<(), Failure> {
    match unknown(broker, target).await? {
        Some(what) if !new => Err(Failure::new(Exit::Usage, format!("{what} (--new if it is a new one)"))),
        _ => Ok(()),
    }
}

/// The same for a breaker, whose key is a target's name or stands in the settings of some.
pub(crate) async fn must_guard(broker: &Broker, key: &str, new: bool) -> Result<(), Failure> {
    if broker.operator().breakers().await?.iter().any(|breaker| breaker.key == key) {
        return Ok(());
    }
    must_be_known(broker, key, new).await
}

/// Says so where a name that nothing knows is nearly one that something does. Who may only publish may not ask, and is told
/// nothing.
pub(crate) async fn warn_if_misspelt(broker: &Broker, target: &str) {
    if let Ok(Some(what)) = unknown(broker, target).await
        && what.ends_with('?')
    {
        eprintln!("{}", output::printable(&what));
    }
}

async fn unknown(broker: &Broker, target: &str) -> Result<Option<String>, Failure> {
    if broker.operator().target(target).await?.is_some() {
        return Ok(None);
    }
    let nearest = broker.operator().nearest_target(target).await?;
    let meant = nearest.map(|name| format!("; did you mean {name}?"));
    let what = format!("no message, setting or process names the target {target}");
    Ok(Some(what + meant.as_deref().unwrap_or_default()))
}
