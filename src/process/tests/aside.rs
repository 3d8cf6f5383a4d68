use super::*;
use crate::connection::{Pool, PoolConfig, Settings};

/// Never asked for a connection.
fn store() -> Store {
    let settings = Settings::parse("host=/nowhere user=nobody").expect("it can be read");
    let locks_max = Duration::from_secs(20);
    let one = PoolConfig { connections_max: 1, wait_max: None, locks_max, read_only: false };
    let pool = Pool::new(settings, &one).expect("one is enough");
    Store::new(pool, Duration::from_secs(1), Telemetry::default())
}

/// Starts a thread from a runtime, and what ends with it.
fn start(runtime: &Handle) -> (Alive, JoinSet<()>, oneshot::Receiver<()>) {
    let _inside = runtime.enter();
    let mut tasks = JoinSet::new();
    let (aside, alive) = Aside::start(store(), &mut tasks, Duration::from_secs(60)).expect("a thread starts");
    let (tell, ended) = oneshot::channel();
    aside.runtime.spawn(async move {
        let _tell = tell;
        std::future::pending::<()>().await;
    });
    (alive, tasks, ended)
}

#[test]
fn the_thread_ends_when_its_process_is_dropped_inside_a_runtime_or_outside_or_with_the_runtime_blocked() {
    let one = || Builder::new_current_thread().enable_all().build().expect("a runtime");
    for inside in [true, false] {
        let runtime = one();
        let (alive, tasks, ended) = start(runtime.handle());
        if inside {
            runtime.block_on(async { drop((alive, tasks)) });
        } else {
            drop((alive, tasks));
        }
        // The runtime is there, and runs nothing.
        assert!(ended.blocking_recv().is_err());
    }
}

#[test]
fn the_thread_ends_with_the_runtime_that_it_answers_for_and_calls_fail_from_then_on() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let mut tasks = JoinSet::new();
    let patience = Duration::from_millis(20);
    let (aside, _alive) = Aside::start(store(), &mut tasks, patience).expect("a thread starts");
    assert!(runtime.block_on(aside.call(async |_| Ok(()))).is_ok());
    let (tell, ended) = oneshot::channel::<()>();
    aside.runtime.spawn(async move {
        let _tell = tell;
        std::future::pending::<()>().await;
    });
    drop(_inside);
    runtime.shutdown_background();
    assert!(ended.blocking_recv().is_err());
    let another = Builder::new_current_thread().build().expect("a runtime");
    let error = another.block_on(aside.call(async |_| Ok(()))).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Closed);
}
