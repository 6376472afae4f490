//! Invitations, and nodes that come with them over a real socket.

use super::{Invites, Refusal};
use crate::cluster_file::ClusterFile;
use crate::config::{DurabilityMode, NodeConfig, StorageSection, TransportSection};
use crate::join::arrive::{ArriveError, arrive};
use crate::join::token::JoinToken;
use crate::join::{Answer, Question, SCHEMA, hex};
use crate::provision::{ClusterSpec, JoinSpec, NodeSpec, create};
use galvani_model::limits::Limits;
use galvani_transport::pki::Identity;
use galvani_transport::{NodeKey, PeerIdentity, SigningEndpoint};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

struct Operator {
    dir: TempDir,
    cluster: ClusterFile,
    ca: PathBuf,
}

impl Operator {
    fn new() -> Operator {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spec = ClusterSpec {
            name: "prod".to_owned(),
            partitions: 8,
            n: 1,
            nodes: vec![node("n1")],
            durability: DurabilityMode::Os,
            mtu_max: 1452,
            faults: false,
        };
        create(&spec, dir.path()).expect("made");
        let cluster = ClusterFile::load(&dir.path().join("cluster.json")).expect("made");
        let ca = dir.path().join("ca");
        Operator { dir, cluster, ca }
    }

    fn spec(&self, name: &str) -> JoinSpec<'_> {
        JoinSpec {
            ca: &self.ca,
            cluster: &self.cluster,
            node: node(name),
            durability: DurabilityMode::Fsync,
            limits: Limits::default(),
            storage: StorageSection::default(),
            transport: TransportSection::default(),
        }
    }

    fn invites(&self) -> Invites {
        Invites::of(&self.spec("n2")).expect("the root is there")
    }

    fn invite(&self, name: &str, life: Duration, at: SocketAddr) -> JoinToken {
        self.invites().invite(&self.spec(name), life, &[at]).expect("invited").1
    }

    fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn node(name: &str) -> NodeSpec {
    let lanes = vec![([127, 0, 0, 1], 7080).into()];
    NodeSpec { name: name.to_owned(), zone: "b".to_owned(), weight: 50, lanes }
}

fn question(token: &JoinToken, key: &NodeKey) -> Vec<u8> {
    let (secret, public_key) = (hex(&token.secret), hex(&key.public()));
    let question = Question { schema: SCHEMA.to_owned(), secret, public_key };
    serde_json::to_vec(&question).expect("JSON")
}

const HOUR: Duration = Duration::from_secs(3600);

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

#[test]
fn an_invitation_is_good_for_one_key_and_for_its_time() {
    let operator = Operator::new();
    let token = operator.invite("n2", HOUR, nowhere());
    let [mine, other] = [(), ()].map(|()| NodeKey::generate().expect("made"));
    let answer =
        |token: &JoinToken, key: &NodeKey| operator.invites().answer(&question(token, key));
    assert_eq!(answer(&token, &mine).1, Ok("n2".to_owned()));
    // Its answer may be lost; whoever else has the token comes too late, also after a restart.
    assert_eq!(answer(&token, &mine).1, Ok("n2".to_owned()));
    let refused = answer(&token, &other).1.expect_err("it was used");
    assert!(matches!(refused, Refusal::Used { .. }), "{refused}");
    let late = operator.invite("n3", Duration::ZERO, nowhere());
    let refused = answer(&late, &mine).1.expect_err("it is over");
    assert!(matches!(refused, Refusal::Expired { .. }), "{refused}");
    let forged = JoinToken { secret: [7; 16], ..token };
    assert_eq!(answer(&forged, &mine).1, Err(Refusal::Unknown));
    let stranger = Operator::new();
    let theirs = stranger.invite("n2", HOUR, nowhere());
    assert_eq!(answer(&theirs, &mine).1, Err(Refusal::Unknown));
}

#[test]
fn questions_that_do_not_hold_together_are_refused() {
    let operator = Operator::new();
    let token = operator.invite("n2", HOUR, nowhere());
    let whole = question(&token, &NodeKey::generate().expect("made"));
    let text = String::from_utf8(whole.clone()).expect("JSON");
    for bad in [
        text.replace("join/1", "join/2"),
        text.replace(&hex(&token.secret), "xy"),
        text.replace("public_key", "private_key"),
        text.replace("\"public_key\":\"04", "\"public_key\":\"05"),
        String::new(),
    ] {
        let refused = operator.invites().answer(bad.as_bytes()).1.expect_err(&bad);
        assert!(matches!(refused, Refusal::Malformed { .. } | Refusal::Failed { .. }), "{refused}");
    }
    for end in 0..whole.len() {
        assert!(operator.invites().answer(&whole[..end]).1.is_err());
    }
    // None of these has used it up.
    assert_eq!(operator.invites().answer(&whole).1, Ok("n2".to_owned()));
}

/// Answers questions until it is dropped.
async fn signer(operator: &Operator) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let ca = galvani_transport::pki::ClusterCa::load(&operator.ca).expect("made");
    let mut endpoint = SigningEndpoint::bind(([127, 0, 0, 1], 0).into(), &ca).expect("bound");
    let at = endpoint.local_addr().expect("bound");
    let invites = operator.invites();
    let serve = async move {
        while let Some(asked) = endpoint.next().await {
            let (answer, _) = invites.answer(&asked.question);
            asked.answer(&answer).await;
        }
    };
    (at, tokio::spawn(serve))
}

fn node_in(home: &Path) -> (NodeConfig, PeerIdentity) {
    let config = NodeConfig::load(&home.join("galvani.toml")).expect("it has arrived");
    let identity = Identity::load(&config.node.identity).expect("it has arrived");
    (config, identity.peer_identity().expect("a certificate"))
}

#[tokio::test]
async fn a_node_arrives_with_a_token_and_a_key_of_its_own() {
    let operator = Operator::new();
    let (at, serving) = signer(&operator).await;
    let token = operator.invite("n2", HOUR, at);
    let home = operator.home("host");
    let made = arrive(&token, &home).await.expect("welcome");
    assert_eq!(made, Some(home.join("galvani.toml")));
    let (config, peer) = node_in(&home);
    assert_eq!((config.node.name.as_str(), config.node.durability), ("n2", DurabilityMode::Fsync));
    assert_eq!(config.join.as_ref().map(|join| join.weight), Some(50));
    let file = ClusterFile::load(&config.node.cluster).expect("there");
    assert_eq!(file, operator.cluster);
    // Started again with the same words, it is what it is; and a lost answer is asked for again.
    assert_eq!(arrive(&token, &home).await.expect("it is there"), None);
    std::fs::remove_file(home.join("galvani.toml")).expect("there");
    arrive(&token, &home).await.expect("the same key");
    assert_eq!(node_in(&home).1, peer);
    let again = arrive(&token, &operator.home("other")).await.expect_err("it was used");
    assert!(again.to_string().contains("was used"), "{again}");
    serving.abort();
}

#[tokio::test]
async fn whoever_should_not_arrive_is_told_why() {
    let (operator, stranger) = (Operator::new(), Operator::new());
    let (at, serving) = signer(&operator).await;
    let token = operator.invite("n2", HOUR, at);
    let other = JoinToken { root: stranger.invite("n2", HOUR, at).root, ..token.clone() };
    let refused = arrive(&other, &operator.home("a")).await.expect_err("another cluster's");
    assert!(matches!(refused, ArriveError::OtherCluster { .. }), "{refused}");
    let data = operator.home("b").join("data");
    std::fs::create_dir_all(data.join("engine")).expect("made");
    let refused = arrive(&token, &operator.home("b")).await.expect_err("old data");
    assert!(matches!(refused, ArriveError::OldData { .. }), "{refused}");
    let late = JoinToken { expires_s: 1, ..token.clone() };
    let refused = arrive(&late, &operator.home("c")).await.expect_err("expired");
    assert!(matches!(refused, ArriveError::Expired { .. }), "{refused}");
    serving.abort();
    // The node that was refused for its data has used nothing up.
    let answered =
        operator.invites().answer(&question(&token, &NodeKey::generate().expect("made")));
    let (answer, told) = answered;
    assert_eq!(told, Ok("n2".to_owned()));
    assert!(matches!(serde_json::from_slice(&answer), Ok(Answer::Welcome(_))));
}
