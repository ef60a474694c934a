//! `shardmill check`: validates a file and, if asked, sees whether what it names answers.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardmill::Probe;
use shardmill::engine::FailureDestination;

use crate::assembly::{self, PROBE_TIMEOUT, Parts};
use crate::config;
use crate::identity::Positions;
use crate::profile;
use crate::run::SidecarError;

/// A program may take longer to start than anything else to answer.
const START_TIMEOUT: Duration = Duration::from_secs(40);

/// Validates the file at `path`; with `online` also asks the stream, the destination, the store and the function of
/// each mapping. Prints one line each and returns whether everything is in order.
///
/// # Errors
/// The file is not valid, or a part of it could not be put to work: what `run` refuses.
pub async fn check(path: &Path, online: bool) -> Result<bool, SidecarError> {
    let loaded = config::load(path, &|name| std::env::var(name).ok())?;
    for note in loaded.ignored.iter().chain(&loaded.warnings) {
        say!("note     line {}: {}: {}", note.line, note.key, note.message);
    }
    for mapping in &loaded.config.mappings {
        assembly::validate(mapping)?;
        let mapping = &mapping.mapping;
        let idle = if mapping.enabled() { "" } else { "; it is idle: Enabled is false" };
        say!("ok       {} reads {}{idle}", mapping.application_name(), mapping.event_source().arn);
    }
    if !online {
        return Ok(true);
    }
    if let Some(text) = loaded.config.aws.profile.as_deref().and_then(profile::missing) {
        say!("note     Aws.Profile: {text}");
    }
    let aws = assembly::aws(&loaded.config.aws, assembly::stream_region(&loaded.config)).await;
    let mut stores = assembly::Stores::of(&loaded.config);
    let mappings = loaded.config.mappings;
    let taken = Arc::new(assembly::identities(&mappings));
    let mut well = true;
    for mapping in mappings {
        if !mapping.mapping.enabled() {
            let name = mapping.mapping.application_name();
            say!("note     {name}: nothing of it is asked or started: Enabled is false");
            continue;
        }
        match assembly::parts(mapping, &aws, &mut stores) {
            Ok(parts) => well &= probe(&parts, &taken).await,
            Err(error) => {
                say!("FAILED   {error}");
                well = false;
            }
        }
    }
    Ok(well)
}

/// Asks every part of one mapping.
async fn probe(parts: &Parts, taken: &Arc<BTreeSet<String>>) -> bool {
    let mut first = None;
    let mut well = line(&parts.source.0.describe(), PROBE_TIMEOUT, async {
        let listing = parts.source.0.shards().await.map_err(|e| e.to_string())?;
        let open = listing.shards.iter().find(|shard| shard.open).or_else(|| listing.shards.first());
        first = open.map(|shard| shard.id.clone());
        let shards = match listing.shards.len() {
            1 => "1 shard".to_owned(),
            shards => format!("{shards} shards"),
        };
        Ok(if listing.is_disabled {
            format!("{shards}; the stream is disabled: nothing new will come, and one that is enabled again has a new ARN")
        } else {
            shards
        })
    })
    .await;
    if let Some(shard) = first {
        well &= line(&format!("reading {shard}"), PROBE_TIMEOUT, async {
            let allowed = parts.source.0.may_read(&shard).await.map_err(|e| e.to_string())?;
            Ok(allowed.unwrap_or("not asked").to_owned())
        })
        .await;
    }
    let answers = line(&parts.store.describe(), PROBE_TIMEOUT, async {
        let leases = parts.store.list().await.map_err(|e| e.to_string())?;
        Ok(format!("{} leases", leases.len()))
    })
    .await;
    well &= answers;
    if answers {
        note_positions(parts, taken).await;
    }
    if let Some(destination) = &parts.destination {
        let is_file = matches!(parts.config.mapping.failure_destination(), Some(FailureDestination::File(_)));
        well &= line(&destination.0.describe(), PROBE_TIMEOUT, async {
            Ok(match destination.0.probe().await.map_err(|e| e.to_string())? {
                Probe::NotAsked(why) => format!("not asked: {why}"),
                _ if is_file => "is writable".to_owned(),
                _ => "answers".to_owned(),
            })
        })
        .await;
    }
    well & line("function", START_TIMEOUT, async {
        parts.function.try_out().await.map(str::to_owned).map_err(|e| e.to_string())
    })
    .await
}

/// Reports where the mapping's positions are if they are not under its own identity. The stream is asked for that, too,
/// so it is no part of the store's line, and nothing that it fails at is the mapping's fault.
async fn note_positions(parts: &Parts, taken: &Arc<BTreeSet<String>>) {
    match tokio::time::timeout(PROBE_TIMEOUT, Positions::new(parts, taken).find()).await {
        Ok(Ok(found)) => {
            if let Some(text) = found.describe(&parts.config.mapping) {
                say!("note     {text}");
            }
        }
        Ok(Err(error)) => say!("note     positions under other names could not be looked for: {error}"),
        Err(_) => {
            let limit = PROBE_TIMEOUT.as_secs();
            say!("note     positions under other names could not be looked for within {limit} s");
        }
    }
}

async fn line(what: &str, limit: Duration, probe: impl Future<Output = Result<String, String>>) -> bool {
    let result = tokio::time::timeout(limit, probe).await;
    match result.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs()))) {
        Ok(text) => {
            say!("ok       {what}: {text}");
            true
        }
        Err(text) => {
            say!("FAILED   {what}: {text}");
            false
        }
    }
}
