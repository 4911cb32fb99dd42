//! An object as a file to read, in bounded memory: one answer is streamed, and another is asked for where it breaks off or another place is wanted.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use tokio::runtime::Handle;

// An answer that breaks off is gone on from where it did so many times in a row.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// An object of one version, read by a thread that may block.
pub struct ObjectFile {
    store: Arc<AmazonS3>,
    object: ObjectMeta,
    runtime: Handle,
    position: u64,
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    at_hand: Bytes,
}

impl ObjectFile {
    /// At its beginning.
    pub fn new(store: Arc<AmazonS3>, object: ObjectMeta) -> Self {
        Self { store, object, runtime: Handle::current(), position: 0, stream: None, at_hand: Bytes::new() }
    }

    async fn next_bytes(&mut self) -> object_store::Result<Option<Bytes>> {
        if self.stream.is_none() {
            let range = GetRange::Bounded(self.position..self.object.size);
            let options = GetOptions { range: Some(range), if_match: self.object.e_tag.clone(), ..GetOptions::default() };
            self.stream = Some(self.store.get_opts(&self.object.location, options).await?.into_stream());
        }
        match &mut self.stream {
            Some(stream) => stream.next().await.transpose(),
            None => Ok(None),
        }
    }

    // Gets bytes until there are some.
    fn fill(&mut self) -> io::Result<()> {
        let runtime = self.runtime.clone();
        let mut tries = 0;
        while self.at_hand.is_empty() {
            let trouble = match runtime.block_on(self.next_bytes()) {
                Ok(Some(bytes)) => {
                    self.at_hand = bytes;
                    continue;
                }
                Ok(None) => io::Error::other(format!("the answer with the object {} ended too early", self.object.location)),
                // Another version is there now.
                Err(error @ (object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. })) => {
                    return Err(io::Error::other(error));
                }
                Err(error) => io::Error::other(error),
            };
            self.stream = None;
            tries += 1;
            if tries == TRIES {
                return Err(trouble);
            }
            runtime.block_on(tokio::time::sleep(PAUSE * tries));
        }
        Ok(())
    }
}

impl Read for ObjectFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.object.size {
            return Ok(0);
        }
        self.fill()?;
        let read = self.at_hand.len().min(buffer.len());
        self.at_hand.copy_to_slice(&mut buffer[..read]);
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for ObjectFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.object.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let position = position.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the beginning of the object"))?;
        if position != self.position {
            self.position = position;
            self.stream = None;
            self.at_hand = Bytes::new();
        }
        Ok(position)
    }
}
