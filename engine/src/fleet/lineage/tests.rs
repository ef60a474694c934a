//! Which leases a listing calls for.

use super::*;

fn node(name: &str, parents: &[&str], open: bool) -> Shard {
    let parents = parents.iter().map(|p| ShardId::from(*p)).collect();
    Shard { id: name.into(), parents, hash_range: None, open }
}

fn plan(listing: &[Shard], known: &[&str], start: &Start) -> Vec<(String, Position, Vec<String>)> {
    // Each waits for its parents, as far as they have leases.
    let parents =
        |name: &str| listing.iter().find(|node| node.id.as_str() == name).map(|node| node.parents.clone());
    let gates =
        |name: &str| parents(name).unwrap_or_default().into_iter().filter(|p| known.contains(&p.as_str()));
    let known = known.iter().map(|name| (ShardId::from(*name), gates(name).collect())).collect();
    plan_leases(listing, &known, start)
        .into_iter()
        .map(|l| (l.shard.to_string(), l.start, l.parents.iter().map(ToString::to_string).collect()))
        .collect()
}

/// a split into b and c, which merged into d; x was trimmed.
fn lineage() -> Vec<Shard> {
    vec![
        node("a", &["x"], false),
        node("b", &["a"], false),
        node("c", &["a"], false),
        node("d", &["b", "c"], true),
    ]
}

#[test]
fn trim_horizon_calls_for_every_listed_shard_and_a_trimmed_parent_does_not_gate() {
    let planned = plan(&lineage(), &[], &Start::TrimHorizon);
    let parents: Vec<_> = planned.iter().map(|(_, _, parents)| parents.join(",")).collect();
    assert_eq!(parents, ["", "a", "a", "b,c"]);
    assert!(planned.iter().all(|(_, start, _)| *start == Position::TrimHorizon));
}

#[test]
fn i15_latest_calls_for_open_shards_at_the_pinned_time_and_for_later_children_from_their_beginning() {
    let start = Start::Latest { pinned: 77 };
    assert_eq!(plan(&lineage(), &[], &start), [("d".to_owned(), Position::AtTimestamp(77), vec![])]);
    let mut later = lineage();
    later[3].open = false;
    later.extend([node("e", &["d"], true), node("f", &["d"], true)]);
    let planned = plan(&later, &["a", "b", "c", "d"], &start);
    assert_eq!(planned[0], ("e".to_owned(), Position::TrimHorizon, vec!["d".to_owned()]));
    assert_eq!(planned.len(), 2);
}

#[test]
fn i15_a_shard_that_an_interrupted_first_listing_missed_starts_at_the_pinned_time() {
    let listing = [node("a", &[], true), node("b", &[], false), node("c", &["b"], true)];
    let planned = plan(&listing, &["a"], &Start::Latest { pinned: 77 });
    assert_eq!(planned[0], ("b".to_owned(), Position::AtTimestamp(77), vec![]));
    assert_eq!(planned[1], ("c".to_owned(), Position::AtTimestamp(77), vec!["b".to_owned()]));
}

#[test]
fn i15_a_listing_in_the_middle_of_a_reshard_pins_latest_at_the_closed_shards() {
    let planned = plan(&[node("a", &[], false)], &[], &Start::Latest { pinned: 77 });
    assert_eq!(planned, [("a".to_owned(), Position::AtTimestamp(77), vec![])], "incident 33");
}

#[test]
fn i15_ancestors_that_latest_passed_over_are_not_called_for_later_and_do_not_gate() {
    let start = Start::Latest { pinned: 77 };
    assert!(plan(&lineage(), &["d"], &start).is_empty());
    let mut later = lineage();
    later.push(node("s", &["b"], true));
    let planned = plan(&later, &["d"], &start);
    assert_eq!(planned, [("s".to_owned(), Position::AtTimestamp(77), vec![])]);
}

#[test]
fn i15_a_parent_that_a_lease_waits_for_is_called_for_with_its_ancestors() {
    let known = BTreeMap::from([("d".into(), vec!["b".into(), "c".into()])]);
    let planned = plan_leases(&lineage(), &known, &Start::Latest { pinned: 77 });
    let names: Vec<_> = planned.iter().map(|lease| lease.shard.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn at_timestamp_holds_across_reshards() {
    let planned = plan(&lineage(), &["a"], &Start::AtTimestamp(5));
    assert!(planned.iter().all(|(_, start, _)| *start == Position::AtTimestamp(5)), "incident 38");
}

fn names(names: &[&str]) -> Vec<ShardId> {
    names.iter().map(|name| ShardId::from(*name)).collect()
}

fn read() -> Position {
    Position::After(crate::position::Seq::plain("1"))
}

/// A lease: shard, parents, checkpoint.
type Row = (ShardId, Vec<ShardId>, Position);

fn row(name: &str, parents: &[&str], checkpoint: Position) -> Row {
    (name.into(), names(parents), checkpoint)
}

/// A listing, each shard as in `child<parent+parent`.
fn listing(shards: &[&str]) -> BTreeMap<ShardId, Vec<ShardId>> {
    let node = |text: &&str| {
        let (shard, parents) = text.split_once('<').unwrap_or((text, ""));
        (shard.into(), names(&parents.split('+').filter(|name| !name.is_empty()).collect::<Vec<_>>()))
    };
    shards.iter().map(node).collect()
}

fn gone<'a>(listed: &'a BTreeMap<ShardId, Vec<ShardId>>, leases: &'a [Row]) -> BTreeSet<&'a ShardId> {
    let parents = |shard: &ShardId| leases.iter().find(|row| row.0 == *shard).map_or(&[][..], |row| &row.1);
    gone_shards(listed, parents)
}

fn starts(shard: &str, leases: &[Row], listed: &[&str]) -> bool {
    let checkpoint = |shard: &ShardId| leases.iter().find(|row| row.0 == *shard).map(|row| &row.2);
    let (_, parents, _) = leases.iter().find(|row| row.0.as_str() == shard).unwrap();
    may_start(&shard.into(), parents, checkpoint, &gone(&listing(listed), leases))
}

fn finished(leases: &[Row], listed: &[&str], held: &[&str]) -> Vec<String> {
    let listed = listing(listed);
    let gone = gone(&listed, leases);
    let nodes: Vec<LeaseNode<'_>> = leases
        .iter()
        .map(|(shard, parents, checkpoint)| LeaseNode {
            shard,
            parents,
            checkpoint,
            free: !held.contains(&shard.as_str()),
            gone: gone.contains(shard),
        })
        .collect();
    finished_leases(&nodes).iter().map(ToString::to_string).collect()
}

#[test]
fn i9_a_merged_shard_waits_for_both_parents_a_vanished_one_has_ended_and_one_that_is_not_listed_yet_has_not()
{
    let end = || Position::ShardEnd;
    let d = || row("d", &["b", "c"], Position::TrimHorizon);
    let both = |c| [row("b", &[], end()), row("c", &[], c), d()];
    assert!(!starts("d", &both(Position::TrimHorizon), &["b", "c", "d<b+c"]));
    assert!(starts("d", &both(end()), &[]));
    let one = [row("b", &[], end()), d()];
    assert!(starts("d", &one, &["d<b+c"]), "incident 36: c is gone");
    assert!(!starts("d", &one, &["b"]), "nothing is known of c yet");
    assert!(!starts("d", &one, &["c", "d<b+c"]), "the lease of c is still to come");
    assert!(starts("d", &one, &["e<d"]), "the shard is gone as well, so its parents are");
    assert!(!starts("d", &one, &["c", "e<d"]), "unless the listing shows one of them");
}

#[test]
fn i9_a_shard_that_has_been_read_needs_no_leases_of_its_parents_any_more() {
    assert!(starts("d", &[row("d", &["b", "c"], read())], &[]));
    assert!(!starts("d", &[row("d", &["b", "c"], Position::TrimHorizon)], &[]));
}

#[test]
fn incident_40_a_finished_lease_goes_once_the_stream_has_forgotten_its_shard_and_nobody_waits_for_it() {
    let end = || Position::ShardEnd;
    let line = [row("a", &[], end()), row("b", &["a"], end()), row("c", &["b"], read())];
    assert_eq!(finished(&line, &["c<b"], &[]), ["a", "b"], "the oldest first");
    assert_eq!(finished(&line, &["b<a", "c<b"], &[]), ["a"]);
    assert!(finished(&line, &["a", "b<a", "c<b"], &[]).is_empty(), "the stream still knows them");
    assert!(finished(&line, &["a", "c<b"], &[]).is_empty(), "a child is not forgotten before its parent");
    assert!(finished(&line, &["x"], &[]).is_empty(), "a listing that lags behind says nothing");
    assert!(finished(&line[2..], &["d<c"], &[]).is_empty(), "unfinished");
    assert!(finished(&line, &["c<b"], &["a"]).is_empty(), "held, and the rest comes after it");
    assert_eq!(finished(&line, &["c<b"], &["b"]), ["a"]);
    let waits = [row("b", &[], end()), row("c", &["b"], Position::TrimHorizon)];
    assert!(finished(&waits, &["c<b"], &[]).is_empty(), "its child has not been read");
    assert!(finished(&[row("b", &[], end())], &["x"], &[]).is_empty(), "its children are not known");
}

#[test]
fn incident_40_a_shard_that_stays_unread_for_months_does_not_keep_its_siblings_descendants() {
    let end = || Position::ShardEnd;
    let mut leases = vec![
        row("a", &[], end()),
        row("idle", &["a"], Position::TrimHorizon),
        row("b", &["a"], end()),
        row("c", &["b"], end()),
        row("d", &["c"], read()),
    ];
    assert_eq!(finished(&leases, &["idle<a", "d<c"], &[]), ["b", "c"], "only the idle one's parent stays");
    leases.retain(|lease| !["b", "c"].contains(&lease.0.as_str()));
    leases[1].2 = end();
    assert_eq!(finished(&leases, &["d<c", "e<idle"], &[]), ["a", "idle"]);
}

#[test]
fn incident_40_both_parents_of_a_merge_go_before_it_and_a_crash_in_between_leaves_nothing_behind() {
    let end = || Position::ShardEnd;
    let all = [
        row("a", &[], end()),
        row("b", &[], end()),
        row("m", &["a", "b"], end()),
        row("n", &["m"], end()),
        row("o", &["n"], read()),
    ];
    let order = finished(&all, &["o<n"], &[]);
    assert_eq!(order, ["a", "b", "m", "n"]);
    for deleted in 0..order.len() {
        let left: Vec<Row> =
            all.iter().filter(|row| !order[..deleted].contains(&row.0.to_string())).cloned().collect();
        assert_eq!(finished(&left, &["o<n"], &[]), order[deleted..], "after a crash");
        assert!(starts("o", &left, &["o<n"]));
    }
}
