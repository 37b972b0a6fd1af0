//! Chromium without a window, driven by its DevTools protocol over a pipe (file descriptors 3 and 4; a message ends with a zero byte).

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{PATIENCE, patiently};

/// Where Chromium is, if it is installed.
pub fn find() -> Option<PathBuf> {
    let names = ["chromium", "google-chrome", "chromium-headless-shell"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    names.iter().find_map(|name| {
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            // A snap can't see our directories nor our pipe.
            .find(|file| file.canonicalize().is_ok_and(|f| !f.ends_with("snap")))
    })
}

/// Says so past what captures the output of tests.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// A key that is pressed and let go.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Tab,
    Enter,
    CtrlEnter,
    Space,
    Down,
}

pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    last: u64,
    asked: Vec<String>,
    faults: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// With one empty page.
    pub fn start(program: &Path) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
            ])
            .arg(program)
            .args([
                "--headless",
                "--remote-debugging-pipe",
                // As root it starts in no other way; it sees nothing but our own page.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--no-proxy-server",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "--lang=en-GB",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let (sender, from) = channel();
        let mut pipe = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while pipe.by_ref().read_until(0, &mut bytes).is_ok_and(|n| n > 0) {
                bytes.pop();
                if sender
                    .send(serde_json::from_slice(&bytes).unwrap())
                    .is_err()
                {
                    return;
                }
                bytes.clear();
            }
        });
        let mut browser = Browser {
            to: process.stdin.take().unwrap(),
            process,
            from,
            session: None,
            last: 0,
            asked: Vec::new(),
            faults: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// A command and its result.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        loop {
            let said = match self.from.recv_timeout(PATIENCE) {
                Ok(said) => said,
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{method}: Chromium ended: {:?}", self.process.wait())
                }
            };
            if said["id"] == self.last {
                assert!(said["error"].is_null(), "{method} {params}: {said}");
                return said["result"].clone();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap();
                self.asked.push(url.to_owned());
            }
            "Runtime.exceptionThrown" => self.faults.push(params.to_string()),
            "Log.entryAdded" => self.faults.push(params["entry"].to_string()),
            "Runtime.consoleAPICalled" => self.faults.push(params["args"].to_string()),
            _ => {}
        }
    }

    /// What has been asked for over the network, and what the browser has complained about.
    pub fn asked_and_faults(&mut self) -> (&[String], &[String]) {
        self.eval("0");
        (&self.asked, &self.faults)
    }

    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{opened}");
    }

    /// What an expression is.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let said = self.call("Runtime.evaluate", params);
        assert!(said["exceptionDetails"].is_null(), "{expression}: {said}");
        said["result"]["value"].clone()
    }

    /// Waits until an expression is true; until then it may fail.
    pub fn wait(&mut self, expression: &str) {
        let began = Instant::now();
        let tried =
            format!("(() => {{ try {{ return !!({expression}) }} catch {{ return false }} }})()");
        while self.eval(&tried) != true {
            if !patiently(began) {
                let text = self.eval("document.body.innerText");
                panic!(
                    "waited in vain for {expression}; the page says\n{}\nand the browser {:#?}",
                    text.as_str().unwrap_or_default(),
                    self.faults
                );
            }
        }
    }

    /// The size of the window in pixels, and whether the system likes it "light" or "dark".
    pub fn show(&mut self, width: u32, height: u32, scheme: &str) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// All of the page, as PNG.
    pub fn screenshot(&mut self, file: &Path) {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", params);
        let bytes = BASE64_STANDARD.decode(picture["data"].as_str().unwrap());
        std::fs::write(file, bytes.unwrap()).unwrap();
    }

    pub fn focus(&mut self, element: &str) {
        // The page may have put another element in its place in between.
        let focused = format!(
            "(() => {{ {element}.focus(); return document.activeElement === {element}; }})()"
        );
        assert_eq!(self.eval(&focused), true, "{element} takes the focus");
    }

    /// Goes there by the tabulator alone.
    pub fn tab_to(&mut self, id: &str) {
        for _ in 0..20 {
            self.press(Key::Tab);
            if self.eval("document.activeElement.id") == id {
                return;
            }
        }
        panic!("the tabulator does not lead to {id}");
    }

    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    pub fn press(&mut self, key: Key) {
        let (name, code, number, text) = match key {
            Key::Tab => ("Tab", "Tab", 9, ""),
            Key::Enter => ("Enter", "Enter", 13, "\r"),
            Key::CtrlEnter => ("Enter", "Enter", 13, ""),
            Key::Space => (" ", "Space", 32, " "),
            Key::Down => ("ArrowDown", "ArrowDown", 40, ""),
        };
        let modifiers = if matches!(key, Key::CtrlEnter) { 2 } else { 0 };
        let down = if text.is_empty() {
            "rawKeyDown"
        } else {
            "keyDown"
        };
        for kind in [down, "keyUp"] {
            let mut event = json!({"type": kind, "key": name, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers});
            if kind == "keyDown" {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it ends its own processes first.
        self.last += 1;
        let close = json!({"id": self.last, "method": "Browser.close"}).to_string() + "\0";
        let began = Instant::now();
        if self.to.write_all(close.as_bytes()).is_ok() {
            while matches!(self.process.try_wait(), Ok(None)) && patiently(began) {}
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
