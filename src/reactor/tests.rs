//! Tasks, descriptors and deadlines against a reactor that nothing else drives.

use std::cell::Cell;

use monoio::{LegacyDriver, RuntimeBuilder};

use super::*;

/// Runs a future as the main one of a runtime.
fn run<F: Future>(future: F) -> F::Output {
    RuntimeBuilder::<LegacyDriver>::new().build().unwrap().block_on(future)
}

#[test]
fn a_task_that_yields_lets_every_other_run_before_it() {
    let others = Rc::new(Cell::new(0));
    let seen = run(async {
        let yielding = monoio::spawn({
            let others = Rc::clone(&others);
            async move {
                yield_now().await;
                others.get()
            }
        });
        for _ in 0..10 {
            let others = Rc::clone(&others);
            monoio::spawn(async move { others.set(others.get() + 1) });
        }
        yielding.await
    });
    assert_eq!(seen, 10);
}
