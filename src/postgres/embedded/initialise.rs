//! Makes the cluster. It appears under its final name only when it is complete, so that an
//! interrupted first start leaves nothing that a second one could mistake for data.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    process::Stdio,
};

use super::{
    EmbeddedConfig, EmbeddedError, account::Account, failed, layout::Layout, layout::one_line,
    programs::Programs,
};

/// The cluster's one superuser; who may use it is decided by who may enter the socket's directory.
pub const SUPERUSER: &str = "tidemark";

/// Runs `initdb` unless the cluster is there.
pub async fn initialise_if_missing(
    config: &EmbeddedConfig,
    layout: &Layout,
    account: &Account,
    programs: &Programs,
) -> Result<(), EmbeddedError> {
    if layout.cluster_version().is_some() {
        return Ok(());
    }
    tracing::info!(directory = %layout.cluster.display(), version = programs.major(), "making a Postgres cluster");
    let unfinished = layout.data_dir.join("cluster.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(failed("remove", &unfinished))?;
    }
    DirBuilder::new().mode(0o700).create(&unfinished).map_err(failed("create", &unfinished))?;
    account.own(&unfinished).map_err(failed("give away", &unfinished))?;

    let mut initdb = account.command(&programs.initdb());
    initdb
        .arg("--pgdata")
        .arg(&unfinished)
        .arg(format!("--username={SUPERUSER}"))
        .args(["--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"])
        .args(["--auth-local=trust", "--auth-host=reject"])
        .stdin(Stdio::null());
    if config.settings.iter().any(|(name, value)| name == "fsync" && value == "off") {
        initdb.arg("--no-sync");
    }
    let output = initdb.output().await.map_err(failed("run", programs.initdb()))?;
    if !output.status.success() {
        return Err(EmbeddedError::Initialise {
            directory: layout.cluster.clone(),
            output: one_line(&output.stderr),
        });
    }
    fs::rename(&unfinished, &layout.cluster).map_err(failed("rename", &unfinished))?;
    // The rename itself must survive a power cut before the first commit is answered.
    fs::File::open(&layout.data_dir)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("flush", &layout.data_dir))
}
