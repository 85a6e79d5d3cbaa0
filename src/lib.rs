//! longsplice: a WebSocket (ws/wss) edge proxy that runs nginx's configuration language.
//!
//! The life of a connection is in [`session`]; what it becomes after the handshake is in [`tunnel`].
//! `ARCHITECTURE.md` has the map. Modules point one way: each may use those above it in this list.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod sys;

pub mod limits;
pub mod wheel;

pub mod http;
pub mod proxy_protocol;
pub mod variables;
pub mod websocket;

pub mod route;
pub mod tls;

pub mod config;

pub mod zone;

pub mod request;

pub mod forward;

pub mod observe;

pub mod upstream;

pub mod generation;

pub mod balance;
pub mod host;
pub mod sandbox;

pub mod reactor;
pub mod scratch;
pub mod stream;
pub mod tunnel;

pub mod record;

pub mod pool;
pub mod worker;

pub mod inspect;

pub mod backend;
pub mod exchange;
pub mod proxy;
pub mod session;

pub mod listener;
pub mod runtime;

pub mod server;

pub mod demo;
pub mod top;

pub mod cli;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
