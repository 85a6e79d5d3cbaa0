//! `stub_status`: the text of nginx's ngx_http_stub_status_module, byte by byte.

use super::Status;

/// `Active connections: 1 ` and the six numbers below it. As in nginx a request counts from its beginning, and a tunnel is one that
/// is being answered; nothing that was accepted goes unhandled.
pub fn stub(status: &Status) -> String {
    let Status { connections, tunnels, .. } = status;
    let requests = status.requests + tunnels.opened + connections.reading + connections.writing;
    format!(
        "Active connections: {} \nserver accepts handled requests\n {} {} {requests} \nReading: {} Writing: {} Waiting: {} \n",
        connections.open,
        connections.accepted,
        connections.accepted,
        connections.reading,
        connections.writing + tunnels.open,
        connections.waiting,
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Connections, Status, Tunnels},
        *,
    };

    #[test]
    fn the_text_is_nginx_s() {
        let status = Status {
            connections: Connections {
                accepted: 16_630_948,
                open: 291,
                sessions: 91,
                reading: 6,
                writing: 40,
                waiting: 45,
            },
            tunnels: Tunnels { open: 200, opened: 1_000, closed: 800 },
            requests: 31_069_465,
            ..Status::default()
        };
        assert_eq!(
            stub(&status),
            "Active connections: 291 \nserver accepts handled requests\n 16630948 16630948 31070511 \n\
             Reading: 6 Writing: 240 Waiting: 45 \n"
        );
    }
}
