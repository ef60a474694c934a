//! Notes, kept in addition to the leases. A store that keeps none passes.

use super::Store;

pub(super) async fn the_first_note_of_a_name_stays_until_it_is_forgotten(store: Store) {
    let note = async |name: &str, value: &str| store.note(name, value).await.unwrap();
    let Some(first) = note("a", "1").await else {
        assert_eq!(note("a", "2").await, None, "a store keeps notes or keeps none");
        store.forget_note("a").await.unwrap();
        return;
    };
    assert_eq!(first, "1");
    assert_eq!(note("a", "2").await.as_deref(), Some("1"), "the first one stays");
    assert_eq!(note("b \u{1f980}'", "\u{1f980}\"").await.as_deref(), Some("\u{1f980}\""), "verbatim");
    assert_eq!(store.list().await.unwrap(), [], "a note is no lease");
    store.forget_note("a").await.unwrap();
    store.forget_note("a").await.unwrap();
    assert_eq!(note("a", "3").await.as_deref(), Some("3"));
    assert_eq!(note("b \u{1f980}'", "4").await.as_deref(), Some("\u{1f980}\""), "others stay");
}
