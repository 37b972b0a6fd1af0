//! `presplit demo`: hosts, proxy, feed service and page in one process.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use presplit::ops::demo::{Demo, Options};
use presplit::proxy::Proxy;
use presplit::shardmap::MapHandle;
use tokio_util::sync::CancellationToken;

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Where map, logs and data go. An earlier demo's are cleared away.
    #[arg(long, value_name = "DIR", default_value = ".demo")]
    dir: PathBuf,
    /// The proxy's port on 127.0.0.1; its HTTP takes the next one, the hosts those 9 and 10 above, the feed service and its page
    /// that 48 above.
    #[arg(long, default_value_t = 6432)]
    port: u16,
}

/// Does what the flags say.
pub(crate) fn demo(args: DemoArgs) -> Result<(), String> {
    super::log_to_stderr();
    let runtime =
        tokio::runtime::Runtime::new().map_err(|e| format!("can't start the runtime: {e}"))?;
    let options = Options {
        dir: args.dir,
        port: args.port,
    };
    // A signal that comes before all is up ends this process, and with it the hosts.
    let demo = runtime.block_on(Demo::start(options, |step| println!("{step}")))?;
    let map_file = demo.map_file();
    let map = MapHandle::open(&map_file).map_err(|faults| super::unusable(&map_file, &faults))?;
    let proxy = Proxy::bind(map.clone()).map_err(|e| e.to_string())?;
    println!("listening on {}", proxy.address());
    let ran = runtime.block_on(run_demo(&demo, map, proxy));
    // Whatever went wrong, nothing is left running.
    demo.stop()?;
    ran?;
    // The terminal may be gone by now.
    let _ = writeln!(
        std::io::stdout(),
        "stopped the feed service, the proxy and both hosts"
    );
    Ok(())
}

/// Runs the proxy and, as long as it serves, the feed service: that one stops first, so that no call of its own is cut off.
async fn run_demo(demo: &Demo, map: MapHandle, proxy: Proxy) -> Result<(), String> {
    let (stop, proxy_stop) = (CancellationToken::new(), CancellationToken::new());
    let feed = async {
        let feed = demo.feed(map, stop.clone()).await?;
        tokio::spawn(super::stop_on_signals(stop.clone()));
        // Whoever reads may have had enough (`| head`).
        let _ = writeln!(std::io::stdout(), "{}", demo.what_next());
        feed.run().await;
        Ok(())
    };
    let feed = async {
        let done = feed.await;
        proxy_stop.cancel();
        done
    };
    let proxied = async {
        let done = proxy.run(proxy_stop.clone()).await;
        stop.cancel();
        done.map_err(|e| e.to_string())
    };
    let (fed, proxied) = tokio::join!(feed, proxied);
    proxied.and(fed)
}
