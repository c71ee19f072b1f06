//! What the engine in memory bounds.

use std::time::Duration;

use ringback_model::DeliveryState;
use ringback_store::contract::{attempt, ended, endpoint, t, told};
use ringback_store::{
    DeliveryQuery, Ending, MAX_FINISHED, MAX_PENDING, MemoryStore, Prune, Pruned, Recorded, Replay, Store,
};

#[tokio::test]
async fn at_most_256_are_pending_per_endpoint_and_the_excess_is_counted() {
    assert_eq!(MAX_PENDING, 256);
    let store = MemoryStore::new();
    let full = (1..=256).map(|n| told(n, 10, &["e"])).collect();
    assert_eq!(store.record(full).await, Ok(Recorded { dropped: 0 }));
    let more = (257..=260).map(|n| told(n, 10, &["e", "f"])).collect();
    assert_eq!(store.record(more).await, Ok(Recorded { dropped: 4 }));

    let counts = store.endpoint_counts().await.unwrap();
    assert_eq!((counts[0].pending, counts[0].dropped), (256, 4));
    assert_eq!((counts[1].pending, counts[1].dropped), (4, 0));
    assert_eq!(store.totals().await.unwrap().dropped, 4);

    let first = store.claim(&endpoint("e"), t(10), 1, t(20)).await.unwrap().claims;
    store.settle(vec![ended(first[0].delivery.id, DeliveryState::Delivered, 1, 10)]).await.unwrap();
    assert_eq!(store.record(vec![told(261, 10, &["e"])]).await, Ok(Recorded { dropped: 0 }));
}

#[tokio::test]
async fn an_event_that_nobody_had_room_for_is_history() {
    let store = MemoryStore::new();
    store.record((1..=257).map(|n| told(n, 10, &["e"])).collect()).await.unwrap();
    let old = Prune { now: t(1000), keep_for: Duration::ZERO, max_bytes: u64::MAX };
    assert_eq!(store.prune(old).await, Ok(Pruned { events: 1, deliveries: 0 }));
}

#[tokio::test]
async fn finished_history_is_bounded_and_the_oldest_goes_first() {
    let store = MemoryStore::new();
    let total = MAX_FINISHED as u64 + 50;
    for n in 1..=total {
        store.record(vec![told(n, n as i64, &["e"])]).await.unwrap();
        let claims = store.claim(&endpoint("e"), t(n as i64), 1, t(i64::MAX)).await.unwrap().claims;
        let settled = ended(claims[0].delivery.id, DeliveryState::Delivered, 1, n as i64);
        assert_eq!(settled.attempt, Some(attempt(1, n as i64, Some(204))));
        store.settle(vec![settled]).await.unwrap();
    }
    let mut kept = Vec::new();
    let mut query = DeliveryQuery { limit: 1000, ..DeliveryQuery::default() };
    loop {
        let page = store.deliveries(query.clone()).await.unwrap();
        kept.extend(page.items.into_iter().map(|row| row.delivery.id.0 as u64));
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    assert_eq!((kept.len(), kept.first(), kept.last()), (MAX_FINISHED, Some(&total), Some(&51)));
    assert_eq!(store.totals().await.unwrap().delivered, total);
}

#[tokio::test]
async fn a_replay_fills_the_queue_and_leaves_the_rest_as_it_is() {
    let store = MemoryStore::new();
    for at in [10, 20] {
        store.record((1..=200).map(|n| told(n + at * 20, at as i64, &["e"])).collect()).await.unwrap();
        store.close_pending(&endpoint("e"), Ending::Dead, t(at as i64)).await.unwrap();
    }
    let all = Replay::Of { endpoint: endpoint("e"), state: None, from: None, to: None };
    assert_eq!(store.replay(all, t(30)).await, Ok(256));
    let counts = store.endpoint_counts().await.unwrap();
    assert_eq!((counts[0].pending, counts[0].dead, counts[0].dropped), (256, 144, 0));
}
