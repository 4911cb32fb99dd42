//! Against a real S3 server.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Seek, SeekFrom};

use autonomy_crds::data_platform::SecretKeyReference;
use autonomy_servers::{S3Options, S3Server};
use object_store::PutPayload;

use super::super::place::RejectFile;
use super::*;

struct World {
    bucket: Bucket,
    _server: S3Server,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server =
            S3Server::start(S3Options { folder: folder.path().join("s3"), port: None, buckets: vec!["stores".to_owned()] }).await.unwrap();
        let secrets = folder.path().join("secrets");
        std::fs::create_dir_all(secrets.join("s3")).unwrap();
        std::fs::write(secrets.join("s3/id"), server.access_key_id()).unwrap();
        std::fs::write(secrets.join("s3/secret"), server.secret_access_key()).unwrap();
        let key = |key: &str| Some(SecretKeyReference { secret_name: "s3".to_owned(), key: key.to_owned() });
        let location = S3Location {
            bucket: "stores".to_owned(),
            prefix: "in/".to_owned(),
            endpoint: Some(server.endpoint()),
            region: "us-east-1".to_owned(),
            access_key_id_from: key("id"),
            secret_access_key_from: key("secret"),
            poll_interval: "1s".to_owned(),
            ..S3Location::default()
        };
        let bucket = Bucket::new(&location, &Secrets::new(Some(secrets))).unwrap();
        Self { bucket, _server: server, _folder: folder }
    }

    async fn put(&self, name: &str, content: impl Into<PutPayload>) {
        self.bucket.store.put(&self.bucket.key(name).unwrap(), content.into()).await.unwrap();
    }

    async fn get(&self, name: &str) -> Option<String> {
        let object = found(self.bucket.store.get(&self.bucket.key(name).unwrap()).await).unwrap()?;
        Some(String::from_utf8(object.bytes().await.unwrap().to_vec()).unwrap())
    }

    async fn waiting(&self) -> Vec<String> {
        let listed = self.bucket.list(&Glob::new("*.csv").unwrap()).await.unwrap();
        listed.into_iter().map(|candidate| candidate.name).collect()
    }

    async fn candidate(&self, name: &str) -> Candidate {
        let listed = self.bucket.list(&Glob::new("*").unwrap()).await.unwrap();
        listed.into_iter().find(|candidate| candidate.name == name).unwrap()
    }

    async fn claim(&self, name: &str) -> Claim {
        match self.bucket.claim(&self.candidate(name).await).await.unwrap() {
            Claimed::Ours(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    async fn source(&self, name: &str) -> Source {
        Source::of(name, &self.bucket.store.head(&self.bucket.key(name).unwrap()).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_overwritten_and_what_waits_is_listed() {
    let world = World::start().await;
    assert_eq!(world.waiting().await, [""; 0]);
    for name in ["b.csv", "a b+ü.csv.gz", "below/c.csv", ".hidden.csv", "d.csv.part", "e.txt", "processed/f.csv"] {
        world.put(name, "x").await;
    }
    let mut waiting = world.waiting().await;
    waiting.sort();
    assert_eq!(waiting, ["a b+ü.csv.gz", "b.csv"]);
    for (index, moved) in ["a.csv", "a.2.csv", "a.3.csv"].iter().enumerate() {
        world.put("a.csv", index.to_string()).await;
        let beside = Beside { end: "note.txt", text: "why".to_owned() };
        let claim = world.claim("a.csv").await;
        world.bucket.move_to(&claim, Folder::Processed, Some(beside)).await.unwrap();
        assert_eq!(world.get(&format!("processed/{moved}")).await, Some(index.to_string()));
        assert_eq!(world.get(&format!("processed/{moved}.note.txt")).await.as_deref(), Some("why\n"));
        assert_eq!(world.get("a.csv").await, None);
        drop(claim);
        // The lease is given back in the background.
        while !world.bucket.leases.are_all_given_back().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(world.bucket.is_processed("a.3.csv").await.unwrap() && !world.bucket.is_processed("a.4.csv").await.unwrap());
    world.put("g.csv", "0123456789").await;
    assert_eq!(world.bucket.ends(&world.candidate("g.csv").await, 3, 4).await.unwrap(), (b"012".to_vec(), b"6789".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_move_is_finished_wherever_it_was() {
    let world = World::start().await;
    let moves = world.bucket.moves();
    for (index, copied) in [false, true].into_iter().enumerate() {
        world.put("a.csv", format!("{index}")).await;
        let (_, to) = moves.reserve(&world.source("a.csv").await, Folder::Processed).await.unwrap();
        if copied {
            let (from, to) = (world.bucket.key("a.csv").unwrap(), world.bucket.key(&to).unwrap());
            world.bucket.store.copy(&from, &to).await.unwrap();
        }
        // As another process that comes later.
        let claimed = world.bucket.claim(&world.candidate("a.csv").await).await.unwrap();
        assert!(matches!(claimed, Claimed::Settled));
        assert_eq!((world.get("a.csv").await, world.get(&to).await), (None, Some(format!("{index}"))));
        assert_eq!(moves.all().await.unwrap().len(), 0);
        world.bucket.leases.forget().await;
    }
    assert_eq!(world.get("processed/a.2.csv").await.as_deref(), Some("1"));
    // Interrupted behind the deletion: only the reservation is left.
    world.put("b.csv", "b").await;
    let (_, to) = moves.reserve(&world.source("b.csv").await, Folder::Rejected).await.unwrap();
    world.bucket.store.rename(&world.bucket.key("b.csv").unwrap(), &world.bucket.key(&to).unwrap()).await.unwrap();
    world.bucket.tidy().await.unwrap();
    assert_eq!(moves.all().await.unwrap().len(), 0);
    // A name that is reserved is another's, also where nothing lies there yet.
    world.put("c.csv", "c").await;
    moves.reserve(&world.source("c.csv").await, Folder::Processed).await.unwrap();
    world.put("c.csv", "another").await;
    let claim = world.claim("c.csv").await;
    world.bucket.move_to(&claim, Folder::Processed, None).await.unwrap();
    assert_eq!(world.get("processed/c.2.csv").await.as_deref(), Some("another"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_held_by_one_and_outlives_no_holder() {
    let world = World::start().await;
    let other = Leases::new(world.bucket.store.clone(), "in/processed/.claims/".to_owned());
    let lease = world.bucket.leases.take("x").await.unwrap().unwrap();
    let begun = std::time::Instant::now();
    // It is renewed, so that it stays beyond its time.
    while begun.elapsed() < Duration::from_secs(13) {
        assert!(other.take("x").await.unwrap().is_none());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    lease.die();
    let died = std::time::Instant::now();
    let taken = loop {
        if let Some(lease) = other.take("x").await.unwrap() {
            break lease;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(died.elapsed() > Duration::from_secs(5), "{:?}", died.elapsed());
    drop(taken);
    let content = world.bucket.claim_content("hash").await.unwrap();
    let mut content = content.unwrap();
    assert_eq!(world.bucket.loaded_as(&content), None);
    assert!(world.bucket.claim_content("hash").await.unwrap().is_none());
    world.bucket.note_loaded(&mut content, "a.csv").await.unwrap();
    drop(content);
    world.bucket.leases.forget().await;
    assert_eq!(world.bucket.loaded_as(&world.bucket.claim_content("hash").await.unwrap().unwrap()), Some("a.csv"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_read_from_anywhere_and_only_in_its_version() {
    let world = World::start().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    world.put("big.csv", content.clone()).await;
    let claim = world.claim("big.csv").await;
    let mut file = world.bucket.open(&claim).unwrap();
    let expected = content.clone();
    tokio::task::spawn_blocking(move || {
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == expected);
        for place in [1_000_000_u64, 5, 2_999_990] {
            assert_eq!(file.seek(SeekFrom::Start(place)).unwrap(), place);
            let mut part = [0; 10];
            file.read_exact(&mut part).unwrap();
            assert_eq!(part, expected[place as usize..place as usize + 10]);
        }
        assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), 3_000_000);
        assert_eq!(file.read(&mut [0; 10]).unwrap(), 0);
    })
    .await
    .unwrap();
    assert!(world.bucket.is_unchanged(&claim).await.unwrap());
    world.put("big.csv", "changed").await;
    assert!(!world.bucket.is_unchanged(&claim).await.unwrap());
    let mut file = world.bucket.open(&claim).unwrap();
    let read = tokio::task::spawn_blocking(move || file.read(&mut [0; 10])).await.unwrap();
    assert!(read.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_are_whole_or_not_there_and_replace_those_of_their_content() {
    let world = World::start().await;
    let line = vec![b'x'; 1 << 20];
    for (sha256, lines) in [("one", 1), ("two", 12), ("one", 2)] {
        let mut rejects = world.bucket.rejects("a.csv", sha256);
        for _ in 0..lines {
            rejects.write(&line).await.unwrap();
        }
        rejects.publish().await.unwrap();
    }
    assert_eq!(world.get("rejected/a.csv.rejects.csv").await.map(|text| text.len()), Some(2 << 20));
    assert_eq!(world.get("rejected/a.csv.2.rejects.csv").await.map(|text| text.len()), Some(12 << 20));
    let mut discarded = world.bucket.rejects("b.csv", "three");
    for _ in 0..12 {
        discarded.write(&line).await.unwrap();
    }
    discarded.discard().await;
    assert_eq!(world.get("rejected/b.csv.rejects.csv").await, None);
}
