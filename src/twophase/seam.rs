//! Where tests stop a commit between two steps, to kill something there. In a release build there is nothing of it.

/// The steps of a commit on several hosts, by name, at which it can be stopped.
#[derive(Clone, Debug, Default)]
pub struct Seam {
    #[cfg(debug_assertions)]
    dir: Option<std::path::PathBuf>,
}

impl Seam {
    /// Stops at the step `x` as long as there is a file `x` in this directory; while it does there is a file `x.reached`.
    #[cfg(debug_assertions)]
    pub fn at(dir: Option<std::path::PathBuf>) -> Seam {
        Seam { dir }
    }

    /// A step is reached.
    #[cfg(debug_assertions)]
    pub async fn reach(&self, step: &str) {
        let Some(dir) = &self.dir else { return };
        let stop = dir.join(step);
        if !stop.exists() {
            return;
        }
        let reached = dir.join(format!("{step}.reached"));
        let _ = std::fs::write(&reached, "");
        while stop.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let _ = std::fs::remove_file(&reached);
    }

    /// A step is reached.
    #[cfg(not(debug_assertions))]
    pub async fn reach(&self, _step: &str) {}
}
