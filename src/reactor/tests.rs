//! Tasks, descriptors and deadlines against a reactor that nothing else drives.

use std::{cell::Cell, io::Write, os::unix::net::UnixStream};

use monoio::{LegacyDriver, RuntimeBuilder};

use super::*;
use crate::{limits::READS_PER_TURN, sys};

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

/// Runs tasks and the reactor until a future is done.
async fn drive<T>(reactor: &Reactor, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = at_once(future.as_mut()).await {
            return output;
        }
        reactor.turn(&mut Vec::new()).unwrap();
        yield_now().await;
    }
}

#[test]
fn a_sender_that_always_has_more_does_not_hold_the_worker() {
    let (mut far, near) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.write_all(&[7; 1000]).unwrap();
    run(async {
        let reactor = Reactor::new().unwrap();
        let near = reactor.watch(near.into()).unwrap();
        let other = Rc::new(Cell::new(false));
        let ran = Rc::clone(&other);
        monoio::spawn(async move { ran.set(true) });
        let mut reads = 0;
        drive(&reactor, async {
            while !other.get() {
                assert_eq!(near.read_with(|fd| sys::recv(fd, &mut [0; 1])).await.unwrap(), 1);
                reads += 1;
            }
        })
        .await;
        assert!(reads <= READS_PER_TURN + 1, "{reads} reads before another task ran");
    });
}

#[test]
fn a_deadline_armed_after_a_standstill_is_not_early() {
    let reactor = Reactor::new().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    // Nothing moves the wheel for a while: a slow disk, a stopped process.
    std::thread::sleep(Duration::from_millis(600));
    reactor.turn(&mut Vec::new()).unwrap();
    let mut waiting = pin!(reactor.within(Duration::from_millis(300), std::future::pending::<()>()));
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    let armed = Instant::now();
    while waiting.as_mut().poll(&mut context).is_pending() {
        std::thread::sleep(Duration::from_millis(10));
        reactor.turn(&mut Vec::new()).unwrap();
        reactor.advance(&mut Vec::new()).unwrap();
    }
    assert!(armed.elapsed() >= Duration::from_millis(300), "after {:?}", armed.elapsed());
}

#[test]
fn who_no_longer_waits_leaves_no_trace_at_the_gate() {
    let gate = Gate::default();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        let mut waiting = pin!(gate.until(|| false));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(gate.len(), 1);
    }
    assert!(gate.is_empty());
}

#[test]
fn the_gate_wakes_those_whose_condition_came_true() {
    let (gate, open) = (Rc::new(Gate::default()), Rc::new(Cell::new(false)));
    let through = run(async {
        let waiting = [0; 3].map(|_| {
            let (gate, open) = (Rc::clone(&gate), Rc::clone(&open));
            monoio::spawn(async move { gate.until(|| open.get()).await })
        });
        yield_now().await;
        gate.wake();
        yield_now().await;
        let early = waiting.iter().filter(|task| task.is_finished()).count();
        open.set(true);
        gate.wake();
        for task in waiting {
            task.await;
        }
        early
    });
    assert_eq!(through, 0);
    assert!(gate.is_empty());
}

#[test]
fn what_came_while_the_clock_jumped_is_heard_before_what_was_due() {
    let reactor = Reactor::new().unwrap();
    reactor.arm(2, 7);
    let mut due = Vec::new();
    let mut strikes = 0;
    std::thread::sleep(Duration::from_millis(900));
    let deadline = Instant::now() + Duration::from_secs(5);
    while due.is_empty() && Instant::now() < deadline {
        reactor.wait(&mut Vec::new()).unwrap();
        strikes += u32::from(reactor.clock.struck.get());
        reactor.advance(&mut due).unwrap();
    }
    assert_eq!((due, strikes), (vec![7], 2), "at the tick behind the jump");
}

#[test]
fn a_worker_that_is_always_late_has_deadlines_too() {
    let reactor = Reactor::new().unwrap();
    let mut due = Vec::new();
    for _ in 0..4 {
        reactor.arm(1, 7);
        std::thread::sleep(Duration::from_millis(600));
        reactor.turn(&mut Vec::new()).unwrap();
        reactor.advance(&mut due).unwrap();
    }
    assert!(!due.is_empty());
}
