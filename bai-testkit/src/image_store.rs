//! The suite of [`ImageStore`].

use std::sync::Arc;

use bai_core::AgentId;
use bai_core::port::ImageStore;

use crate::fixture::image;

/// One test for each case, on what `$fresh` sets up.
#[macro_export]
macro_rules! image_store_conformance {
    ($fresh:path) => {
        $crate::conformance_tests!(
            image_store,
            $fresh,
            [
                an_agents_list_replaces_its_earlier_one,
                images_are_listed_once_per_name_and_architecture,
                images_are_ordered_by_name,
                agents_with_names_those_that_have_it,
                an_image_nobody_has_is_gone,
                a_changed_image_is_updated,
            ]
        );
    };
}

pub async fn an_agents_list_replaces_its_earlier_one(store: Arc<dyn ImageStore>) {
    let agent = AgentId::new("i-1");
    store.put_agent_images(&agent, &[image("a:1"), image("b:1")]).await.unwrap();
    store.put_agent_images(&agent, &[image("b:1"), image("c:1")]).await.unwrap();
    assert_eq!(store.agents_with("a:1").await.unwrap(), []);
    for kept in ["b:1", "c:1"] {
        assert_eq!(store.agents_with(kept).await.unwrap(), std::slice::from_ref(&agent));
    }
}

pub async fn images_are_listed_once_per_name_and_architecture(store: Arc<dyn ImageStore>) {
    let mut arm = image("a:1");
    arm.architecture = "aarch64".to_owned();
    store.put_agent_images(&AgentId::new("i-1"), &[image("a:1"), arm.clone()]).await.unwrap();
    store.put_agent_images(&AgentId::new("i-2"), &[image("a:1")]).await.unwrap();
    assert_eq!(store.images().await.unwrap(), [arm, image("a:1")]);
    let agents = store.agents_with("a:1").await.unwrap();
    assert_eq!(agents, [AgentId::new("i-1"), AgentId::new("i-2")]);
}

pub async fn images_are_ordered_by_name(store: Arc<dyn ImageStore>) {
    let names = ["b:1", "B:1", "a:10", "a:2", "é:1", "z:1"];
    store.put_agent_images(&AgentId::new("i-1"), &names.map(image)).await.unwrap();
    let listed: Vec<_> = store.images().await.unwrap().into_iter().map(|image| image.name).collect();
    assert_eq!(listed, ["B:1", "a:10", "a:2", "b:1", "z:1", "é:1"]);
}

pub async fn agents_with_names_those_that_have_it(store: Arc<dyn ImageStore>) {
    for agent in ["i-2", "i-1", "i-3"] {
        let images = if agent == "i-3" { [image("other:1")] } else { [image("a:1")] };
        store.put_agent_images(&AgentId::new(agent), &images).await.unwrap();
    }
    let agents = store.agents_with("a:1").await.unwrap();
    assert_eq!(agents, [AgentId::new("i-1"), AgentId::new("i-2")]);
    assert_eq!(store.agents_with("unknown:1").await.unwrap(), []);
}

pub async fn an_image_nobody_has_is_gone(store: Arc<dyn ImageStore>) {
    for agent in ["i-1", "i-2"] {
        store.put_agent_images(&AgentId::new(agent), &[image("a:1")]).await.unwrap();
    }
    store.put_agent_images(&AgentId::new("i-1"), &[]).await.unwrap();
    assert_eq!(store.images().await.unwrap(), [image("a:1")]);
    store.put_agent_images(&AgentId::new("i-2"), &[]).await.unwrap();
    assert_eq!(store.images().await.unwrap(), []);
}

pub async fn a_changed_image_is_updated(store: Arc<dyn ImageStore>) {
    store.put_agent_images(&AgentId::new("i-1"), &[image("a:1")]).await.unwrap();
    let mut rebuilt = image("a:1");
    rebuilt.digest = "sha256:new".to_owned();
    rebuilt.labels.insert("ai.backend.runtime-type".to_owned(), "python".to_owned());
    store.put_agent_images(&AgentId::new("i-1"), std::slice::from_ref(&rebuilt)).await.unwrap();
    assert_eq!(store.images().await.unwrap(), [rebuilt]);
}
