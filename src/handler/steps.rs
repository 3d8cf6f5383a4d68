//! Steps of a handler whose results survive its retries.

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};

use super::{Handler, HandlerError, HandlerResult, unreadable};
use crate::{
    error::{Error, Result},
    message::{Delivery, check_payload},
    store::Store,
};

/// Runs the steps of a message's handler, each until it has ended well once; see
/// [`ConsumerBuilder::on_steps`](crate::ConsumerBuilder::on_steps).
#[derive(Clone, Debug)]
pub struct Steps {
    store: Store,
    payload_bytes_max: usize,
    delivery: Delivery,
}

impl Steps {
    /// What the step of this name has returned in this attempt or an earlier one; where it has not ended well yet, does it now and
    /// saves what it returns, in a transaction of its own. `name`: 1 to 200 characters, one for each step of the handler.
    ///
    /// Where the process dies between the effect and the save the step is done again. What closes that window is the
    /// [`effect_key`](Delivery::effect_key), handed to the other system before the effect; the saved output only spares doing it again. A
    /// message that was redriven begins anew. Cancelling it may leave the effect without its output.
    ///
    /// # Errors
    /// The step's own; [`LeaseLost`](crate::ErrorKind::LeaseLost): another attempt has the message, and nothing is saved; that the output
    /// is no JSON, is too large, or a saved one is not a `T`; the database's. Return them.
    pub async fn run<T, E>(
        &self,
        name: &str,
        step: impl AsyncFnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, HandlerError>
    where
        T: Serialize + DeserializeOwned,
        E: Into<HandlerError>,
    {
        let saved = match self.store.step_output(&self.delivery, name).await? {
            Some(saved) => saved,
            None => {
                let output = step().await.map_err(Into::into)?;
                let output = self.checked(name, &output)?;
                self.store.save_step(&self.delivery, name, output.get()).await?
            }
        };
        let unlike = |error| Error::invalid(format!("what step {name:?} has saved cannot be read")).with_source(error);
        Ok(serde_json::from_str(&saved).map_err(unlike)?)
    }

    fn checked<T: Serialize>(&self, name: &str, output: &T) -> Result<Box<serde_json::value::RawValue>> {
        let text = serde_json::value::to_raw_value(output).map_err(|error| {
            Error::invalid(format!("the output of step {name:?} does not serialize to JSON")).with_source(error)
        })?;
        check_payload(text.get(), self.payload_bytes_max)
            .map_err(|error| error.context(format!("the output of step {name:?}")))?;
        Ok(text)
    }
}

/// A closure over a typed payload and what runs its steps as a [`Handler`].
pub(crate) struct StepsHandler<T, F> {
    f: F,
    store: Store,
    payload_bytes_max: usize,
    payload: std::marker::PhantomData<fn(T)>,
}

impl<T, F> StepsHandler<T, F> {
    pub(crate) fn new(f: F, store: Store, payload_bytes_max: usize) -> Self {
        Self { f, store, payload_bytes_max, payload: std::marker::PhantomData }
    }
}

#[async_trait]
impl<T, F, Fut> Handler for StepsHandler<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Delivery, Steps) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send,
{
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        let Self { store, payload_bytes_max, .. } = self;
        let steps = Steps { store: store.clone(), payload_bytes_max: *payload_bytes_max, delivery: delivery.clone() };
        match delivery.json::<T>() {
            Ok(payload) => (self.f)(payload, delivery, steps).await,
            Err(error) => Ok(unreadable::<T>(&error)),
        }
    }
}
