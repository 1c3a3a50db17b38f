//! For tests: a folder of files, which goes with its value, and daemons on sockets.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

pub(super) const ID: &str = "4cc818a75eb691c5efb9c943b0c3a26ec8e0a05acb60bef4717315e65d671774";
pub(super) const UID: &str = "12fdc709-933e-41d0-917f-cd84de9afa94";

pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("esnode-ctr-{}-{number}", process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("folder");
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file with the folders that it needs.
    pub(super) fn write(&self, file: &str, content: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, content).expect("file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("folder");
    }
}

/// How a daemon answers.
#[derive(Clone, Debug)]
pub(super) enum Behaviour {
    /// With this status and this body.
    Answers(&'static str, String),
    /// With these bytes, and hangs up.
    Writes(&'static str),
    /// Takes the request, and keeps the connection without a word.
    Hangs,
}

pub(super) fn answers(body: impl Into<String>) -> Behaviour {
    Behaviour::Answers("200 OK", body.into())
}

/// A daemon in a thread, which serves until the process ends.
#[derive(Clone)]
pub(super) struct Daemon {
    behaviour: Arc<Mutex<Behaviour>>,
    /// The first lines of the requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// On a UNIX socket, in a folder that is made if need be.
    pub(super) fn on_socket(socket: &Path, behaviour: Behaviour) -> Self {
        fs::create_dir_all(socket.parent().expect("parent")).expect("folder");
        let listener = UnixListener::bind(socket).expect("socket");
        let daemon = Self::new(behaviour);
        let serving = daemon.clone();
        thread::spawn(move || serving.serve(listener.incoming()));
        daemon
    }

    /// On a port, which it tells.
    pub(super) fn on_port(behaviour: Behaviour) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let port = listener.local_addr().expect("address").port();
        let daemon = Self::new(behaviour);
        let serving = daemon.clone();
        thread::spawn(move || serving.serve(listener.incoming()));
        (daemon, port)
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("lock") = behaviour;
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }

    fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour: Arc::new(Mutex::new(behaviour)),
            asked: Arc::default(),
        }
    }

    fn serve<S: Read + Write>(&self, connections: impl Iterator<Item = std::io::Result<S>>) {
        let mut kept = Vec::new();
        for mut connection in connections.flatten() {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match connection.read(&mut byte) {
                    Ok(1..) => request.extend(byte),
                    _ => break,
                }
            }
            let request = String::from_utf8(request).expect("text");
            let first = request.lines().next().unwrap_or_default().to_owned();
            self.asked.lock().expect("lock").push(first);
            // Whoever asked may be gone by now.
            let _ = match self.behaviour.lock().expect("lock").clone() {
                Behaviour::Answers(status, body) => write!(
                    connection,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
                Behaviour::Writes(text) => connection.write_all(text.as_bytes()),
                Behaviour::Hangs => {
                    kept.push(connection);
                    Ok(())
                }
            };
        }
    }
}
