//! `wasi:io/streams` and `wasi:random` as WASI says, with the bytes that go through them counted and charged.
//!
//! Every body, file, socket, standard input and output is such a stream, so this one place sees them all.

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::io::streams::{
    self, Host, HostInputStream, HostOutputStream, StreamError as GuestError,
};
use wasmtime_wasi::p2::bindings::random::{insecure, random};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};
use wasmtime_wasi::random::WasiRandomCtx;

use dunlin_model::{Bytes, LimitValue};
use wasmtime::component::Linker;

use crate::calls::Calls;
use crate::denials::{Denial, Denials};
use crate::guest::Guest;
use crate::limits::MAX_WRITE;

type Result<T> = wasmtime::Result<T>;

/// Puts the counted interfaces in the place of those of wasmtime.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> Result<()> {
    streams::add_to_linker::<Guest, Streams<'static>>(linker, Guest::streams)?;
    random::add_to_linker::<Guest, Random<'static>>(linker, Guest::random)?;
    insecure::add_to_linker::<Guest, Random<'static>>(linker, Guest::random)
}

/// The streams of one instance.
pub(crate) struct Streams<'a> {
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) calls: &'a mut Calls,
}

impl HasData for Streams<'static> {
    type Data<'a> = Streams<'a>;
}

impl Streams<'_> {
    fn moved(&mut self, bytes: u64) {
        self.calls.moved(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
}

impl Host for Streams<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<GuestError> {
        self.table.convert_stream_error(error)
    }
}

impl HostInputStream for Streams<'_> {
    async fn drop(&mut self, stream: Resource<DynInputStream>) -> Result<()> {
        HostInputStream::drop(self.table, stream).await
    }

    fn read(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<Vec<u8>> {
        let bytes = HostInputStream::read(self.table, stream, length)?;
        self.calls.moved(bytes.len());
        Ok(bytes)
    }

    async fn blocking_read(
        &mut self,
        stream: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<Vec<u8>> {
        let bytes = self.table.blocking_read(stream, length).await?;
        self.calls.moved(bytes.len());
        Ok(bytes)
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        let skipped = HostInputStream::skip(self.table, stream, length)?;
        self.moved(skipped);
        Ok(skipped)
    }

    async fn blocking_skip(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        let skipped = self.table.blocking_skip(stream, length).await?;
        self.moved(skipped);
        Ok(skipped)
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        HostInputStream::subscribe(self.table, stream)
    }
}

impl HostOutputStream for Streams<'_> {
    async fn drop(&mut self, stream: Resource<DynOutputStream>) -> Result<()> {
        HostOutputStream::drop(self.table, stream).await
    }

    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        self.table.check_write(stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        if bytes.len() > MAX_WRITE {
            // No stream ever allows more, so this guest has not asked what it may write.
            let size = |bytes: usize| LimitValue::Bytes(Bytes(bytes as u64));
            let denial = Denial { limit: "write", value: size(MAX_WRITE), observed: size(bytes.len()) };
            return Err(StreamError::Trap(LimitExceeded(denial).into()));
        }
        self.calls.moved(bytes.len());
        HostOutputStream::write(self.table, stream, bytes)
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        HostOutputStream::subscribe(self.table, stream)
    }

    async fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        self.calls.moved(bytes.len());
        self.table.blocking_write_and_flush(stream, bytes).await
    }

    async fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        length: u64,
    ) -> StreamResult<()> {
        self.table.blocking_write_zeroes_and_flush(stream, length).await?;
        self.moved(length);
        Ok(())
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        self.table.write_zeroes(stream, length)?;
        self.moved(length);
        Ok(())
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        HostOutputStream::flush(self.table, stream)
    }

    async fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        self.table.blocking_flush(stream).await
    }

    fn splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        let spliced = self.table.splice(to, from, length)?;
        self.moved(spliced);
        Ok(spliced)
    }

    async fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        let spliced = self.table.blocking_splice(to, from, length).await?;
        self.moved(spliced);
        Ok(spliced)
    }
}

/// The random numbers of one instance.
pub(crate) struct Random<'a> {
    pub(crate) random: &'a mut WasiRandomCtx,
    pub(crate) calls: &'a mut Calls,
    pub(crate) denials: &'a mut Denials,
    pub(crate) most: Bytes,
}

impl HasData for Random<'static> {
    type Data<'a> = Random<'a>;
}

impl Random<'_> {
    /// Refuses what is too much, in a way that ends the instance: the interface has no word for a refusal.
    fn check(&mut self, length: u64) -> Result<()> {
        if length > self.most.0 {
            let denial = Denial {
                limit: "random_bytes",
                value: LimitValue::Bytes(self.most),
                observed: LimitValue::Bytes(Bytes(length)),
            };
            self.denials.note(denial);
            return Err(LimitExceeded(denial).into());
        }
        self.calls.moved(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(())
    }
}

impl random::Host for Random<'_> {
    fn get_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.check(length)?;
        random::Host::get_random_bytes(self.random, length)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        random::Host::get_random_u64(self.random)
    }
}

impl insecure::Host for Random<'_> {
    fn get_insecure_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.check(length)?;
        insecure::Host::get_insecure_random_bytes(self.random, length)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        insecure::Host::get_insecure_random_u64(self.random)
    }
}

/// The error with which a call into the host fails that hits a limit, so that the instance ends.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("limit `{}` is {}, observed {}", .0.limit, .0.value, .0.observed)]
pub struct LimitExceeded(pub Denial);
