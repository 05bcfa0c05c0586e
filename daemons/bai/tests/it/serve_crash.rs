//! `kill -9` of `bai serve` while sessions run and while others are being created.

use crate::backend::Backend;
use crate::patience::Dice;
use crate::serve::Serve;
use crate::sessions::{self, Burst, Kept, are_all_that_lives, occupied};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_kernels_outlive_their_server() {
    survives_kills(Backend::Process, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_their_server() {
    survives_kills(Backend::Docker, 2).await;
}

async fn survives_kills(backend: Backend, rounds: usize) {
    let Some(mut server) = Serve::start(backend).await else { return };
    let mut dice = Dice::new();
    let kept = Kept::start(&server.client(), 3).await;
    for round in 0..sessions::rounds(rounds) {
        are_all_that_lives(&kept, &server.client(), &mut server.node).await;
        let before = server.node.kernels();
        let burst = Burst::start(&server.client(), round).await;
        dice.wait(backend.creation_window()).await;
        server.kill().await;
        let after = server.node.kernels();
        assert!(before.iter().all(|kept| after.get(kept.0) == Some(kept.1)), "{before:?} then {after:?}");
        let replies = burst.ends().await;
        server.restart().await;
        kept.remember(&server.client()).await;
        replies.settle(&server.client()).await;
    }
    are_all_that_lives(&kept, &server.client(), &mut server.node).await;
    kept.end(&server.client()).await;
    assert!(occupied(&server.client()).await.is_empty());
    server.node.is_clean().await;
    server.stop().await;
    server.node.is_clean().await;
}
