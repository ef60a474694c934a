use super::*;

fn node(name: &str, parents: &[&str], open: bool) -> ShardNode {
    ShardNode { shard: name.into(), parents: parents.iter().map(|p| ShardId::from(*p)).collect(), open }
}

fn plan(listing: &[ShardNode], known: &[&str], start: &Start) -> Vec<(String, Position, Vec<String>)> {
    // Each waits for its parents, as far as they have leases.
    let parents =
        |name: &str| listing.iter().find(|node| node.shard.as_str() == name).map(|node| node.parents.clone());
    let gates =
        |name: &str| parents(name).unwrap_or_default().into_iter().filter(|p| known.contains(&p.as_str()));
    let known = known.iter().map(|name| (ShardId::from(*name), gates(name).collect())).collect();
    plan_leases(listing, &known, start)
        .into_iter()
        .map(|l| (l.shard.to_string(), l.start, l.parents.iter().map(ToString::to_string).collect()))
        .collect()
}

/// a split into b and c, which merged into d; x was trimmed.
fn lineage() -> Vec<ShardNode> {
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

#[test]
fn i9_a_merged_shard_waits_for_both_parents_a_vanished_one_has_ended_and_one_that_is_not_listed_yet_has_not()
{
    let end = || Position::ShardEnd;
    let names = |names: &[&str]| names.iter().map(|name| ShardId::from(*name)).collect::<BTreeSet<_>>();
    let starts = |checkpoints: &[(&str, Position)], listed: &[&str]| {
        let checkpoints = checkpoints.iter().map(|(name, at)| (ShardId::from(*name), at.clone())).collect();
        may_start(&"d".into(), &["b".into(), "c".into()], &checkpoints, &names(listed))
    };
    assert!(!starts(&[("b", end()), ("c", Position::TrimHorizon)], &["b", "c", "d"]));
    assert!(starts(&[("b", end()), ("c", end())], &[]));
    assert!(starts(&[("b", end())], &["d"]), "incident 36: c is gone");
    assert!(!starts(&[("b", end())], &["b"]), "nothing is known of c yet");
    assert!(!starts(&[("b", end())], &["c", "d"]), "the lease of c is still to come");
}

#[test]
fn incident_40_a_finished_lease_goes_only_after_its_shard_its_parents_leases_and_its_childrens_start() {
    let lease = |name: &str, parents: &[&str], checkpoint| LeaseNode {
        shard: name.into(),
        parents: parents.iter().map(|p| ShardId::from(*p)).collect(),
        checkpoint,
    };
    let read = || Position::After(crate::position::Seq::plain("1"));
    let finished = |leases: &[LeaseNode], listed: &[&str]| {
        let listed = listed.iter().map(|name| ShardId::from(*name)).collect();
        finished_leases(leases, &listed).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let end = || Position::ShardEnd;
    let line = [lease("a", &[], end()), lease("b", &["a"], end()), lease("c", &["b"], read())];
    assert_eq!(finished(&line, &["c"]), ["a"], "generation by generation");
    assert_eq!(finished(&line[1..], &["c"]), ["b"]);
    assert!(finished(&line, &["a", "b", "c"]).is_empty(), "the stream still knows them");
    assert!(finished(&line[2..], &[]).is_empty(), "unfinished");
    let waits = [lease("b", &[], end()), lease("c", &["b"], Position::TrimHorizon)];
    assert!(finished(&waits, &["c"]).is_empty(), "its child has not been read");
    assert!(finished(&[lease("b", &[], end())], &[]).is_empty(), "its children are not known");
}

#[test]
fn incident_33_holes_of_the_hash_key_space_are_found() {
    assert_eq!(uncovered([(0, u128::MAX)]), []);
    assert_eq!(uncovered([]), [(0, u128::MAX)]);
    assert_eq!(uncovered([(10, 19), (30, u128::MAX), (0, 9)]), [(20, 29)]);
    assert_eq!(uncovered([(5, 30), (7, 9)]), [(0, 4), (31, u128::MAX)], "overlaps are no holes");
    assert_eq!(uncovered([(0, u128::MAX), (3, 4)]), []);
}
