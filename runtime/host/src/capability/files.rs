//! `wasi:filesystem`: wasmtime's own, with what is missing there: counting of what is written, and of open files.
//!
//! Without a grant there is no folder to begin with, and every call fails for want of one. A folder for reading
//! goes to wasmtime as it is. Where a guest may write, each call that makes, grows or removes something is counted
//! (`quota`) before it is let through, and hard links are refused, for one length must have one name.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::InstanceId;
use tokio::task::JoinHandle;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp,
    OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, FsError, FsResult, InputStream, OutputStream, Pollable, StreamError,
    StreamResult,
};
use wasmtime_wasi::{WasiCtxView, async_trait};

use super::Granted;
use super::folders::Opened;
use super::quota::{OpenFile, Quota, key};
use super::scratch::Scratch;
use crate::calls::Calls;
use crate::limits::MAX_WRITE;

/// The most files and folders that one instance may have open, streams counted as well. A worker's descriptors are
/// for all its guests.
pub(crate) const MAX_OPEN: usize = 256;

/// What one instance has of files. Nothing is made before it asks.
#[derive(Default)]
pub(crate) struct Files {
    held: BTreeMap<u32, Held>,
    scratch: Option<(Scratch, Opened)>,
    slots: Slot,
}

/// A descriptor of a guest.
pub(crate) struct Held {
    quota: Option<Arc<Quota>>,
    /// Only for files that are counted.
    open: Option<Arc<OpenFile>>,
    _slot: Slot,
}

/// Counted by its clones.
type Slot = Arc<()>;

/// The files of one instance during one call.
pub(crate) struct FilesView<'a> {
    wasi: WasiFilesystemCtxView<'a>,
    files: &'a mut Files,
    calls: &'a mut Calls,
    granted: &'a Granted,
    instance: InstanceId,
}

impl HasData for Files {
    type Data<'a> = FilesView<'a>;
}

fn again(descriptor: &Resource<Descriptor>) -> Resource<Descriptor> {
    Resource::new_borrow(descriptor.rep())
}

fn error(error: &io::Error) -> FsError {
    match error.kind() {
        io::ErrorKind::StorageFull => ErrorCode::InsufficientSpace.into(),
        _ => ErrorCode::from(error).into(),
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> FsResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|failure| error(&failure)),
        Err(failure) => Err(FsError::trap(wasmtime::format_err!("a file operation failed: {failure}"))),
    }
}

impl<'a> FilesView<'a> {
    pub(crate) fn new(
        wasi: WasiCtxView<'a>,
        (files, calls): (&'a mut Files, &'a mut Calls),
        granted: &'a Granted,
        instance: InstanceId,
    ) -> Self {
        let wasi = WasiFilesystemCtxView { ctx: wasi.ctx.filesystem(), table: wasi.table };
        Self { wasi, files, calls, granted, instance }
    }

    fn quota(&self, descriptor: &Resource<Descriptor>) -> Option<Arc<Quota>> {
        self.files.held.get(&descriptor.rep())?.quota.clone()
    }

    fn open_file(&self, descriptor: &Resource<Descriptor>) -> Option<Arc<OpenFile>> {
        self.files.held.get(&descriptor.rep())?.open.clone()
    }

    fn slot(&self) -> FsResult<Slot> {
        // One of them is the counter itself.
        if Arc::strong_count(&self.files.slots) > MAX_OPEN {
            return Err(ErrorCode::Busy.into());
        }
        Ok(Arc::clone(&self.files.slots))
    }

    /// Returns what is known of a name: its kind and length, and which file it is.
    async fn look(
        &mut self,
        folder: &Resource<Descriptor>,
        flags: PathFlags,
        path: &str,
    ) -> Option<(DescriptorStat, MetadataHashValue)> {
        let stat = self.wasi.stat_at(again(folder), flags, path.to_owned()).await.ok()?;
        let hash = self.wasi.metadata_hash_at(again(folder), flags, path.to_owned()).await.ok()?;
        Some((stat, hash))
    }

    /// Counts a name that is gone, as it was before.
    fn count_removed(quota: &Quota, stat: &DescriptorStat, hash: &MetadataHashValue) {
        if stat.type_ == DescriptorType::Directory || stat.link_count > 1 {
            quota.entry_removed();
        } else {
            quota.file_removed(key(hash), stat.size);
        }
    }

    fn push_folder(&mut self, opened: Opened) -> wasmtime::Result<(Resource<Descriptor>, String)> {
        let descriptor = self.wasi.table.push(Descriptor::Dir(opened.folder))?;
        let slot = Arc::clone(&self.files.slots);
        self.files.held.insert(descriptor.rep(), Held { quota: opened.quota, open: None, _slot: slot });
        Ok((descriptor, opened.guest_path))
    }
}

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let mut all = self.granted.folders.clone();
        if let Some(base) = &self.granted.scratch {
            if self.files.scratch.is_none() {
                let made = base.make(self.instance);
                self.files.scratch = Some(made.map_err(|error| {
                    wasmtime::format_err!("its scratch folder could not be made: {error}")
                })?);
            }
            all.extend(self.files.scratch.as_ref().map(|(_, opened)| opened.clone()));
        }
        all.into_iter().map(|opened| self.push_folder(opened)).collect()
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.wasi.convert_error_code(error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        let cause = self.wasi.table.get(&error)?.downcast_ref::<io::Error>();
        if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::StorageFull) {
            return Ok(Some(ErrorCode::InsufficientSpace));
        }
        self.wasi.filesystem_error_code(error)
    }
}

impl HostDescriptor for FilesView<'_> {
    async fn advise(
        &mut self,
        file: Resource<Descriptor>,
        offset: Filesize,
        length: Filesize,
        advice: Advice,
    ) -> FsResult<()> {
        self.wasi.advise(file, offset, length, advice).await
    }

    async fn sync_data(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.wasi.sync_data(descriptor).await
    }

    async fn get_flags(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        self.wasi.get_flags(descriptor).await
    }

    async fn get_type(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorType> {
        self.wasi.get_type(descriptor).await
    }

    async fn set_size(&mut self, file: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        let Some(open) = self.open_file(&file) else { return self.wasi.set_size(file, size).await };
        blocking(move || open.change(|_| size, |file| file.set_len(size))).await
    }

    async fn set_times(
        &mut self,
        descriptor: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        self.wasi.set_times(descriptor, accessed, modified).await
    }

    async fn read(
        &mut self,
        file: Resource<Descriptor>,
        length: Filesize,
        offset: Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        let (bytes, is_end) = self.wasi.read(file, length, offset).await?;
        self.calls.moved(bytes.len());
        Ok((bytes, is_end))
    }

    async fn write(
        &mut self,
        file: Resource<Descriptor>,
        bytes: Vec<u8>,
        offset: Filesize,
    ) -> FsResult<Filesize> {
        self.calls.moved(bytes.len());
        let Some(open) = self.open_file(&file) else { return self.wasi.write(file, bytes, offset).await };
        blocking(move || {
            let end = offset.saturating_add(bytes.len() as u64);
            open.change(|_| end, |file| file.write_at(&bytes, offset)).map(|written| written as u64)
        })
        .await
    }

    async fn read_directory(
        &mut self,
        folder: Resource<Descriptor>,
    ) -> FsResult<Resource<DirectoryEntryStream>> {
        self.wasi.read_directory(folder).await
    }

    async fn sync(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.wasi.sync(descriptor).await
    }

    async fn create_directory_at(&mut self, folder: Resource<Descriptor>, path: String) -> FsResult<()> {
        let Some(quota) = self.quota(&folder) else {
            return self.wasi.create_directory_at(folder, path).await;
        };
        let _turn = quota.turn().await;
        quota.has_room_for_entry(0).await.map_err(|_hit| ErrorCode::InsufficientSpace)?;
        self.wasi.create_directory_at(folder, path).await?;
        quota.entry_made();
        Ok(())
    }

    async fn stat(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        self.wasi.stat(descriptor).await
    }

    async fn stat_at(
        &mut self,
        folder: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        self.wasi.stat_at(folder, flags, path).await
    }

    async fn set_times_at(
        &mut self,
        folder: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        self.wasi.set_times_at(folder, flags, path, accessed, modified).await
    }

    async fn link_at(
        &mut self,
        _folder: Resource<Descriptor>,
        _old_flags: PathFlags,
        _old_path: String,
        _new_folder: Resource<Descriptor>,
        _new_path: String,
    ) -> FsResult<()> {
        // A second name for a file could outlive what was counted for the first, or carry it into another grant.
        Err(ErrorCode::NotPermitted.into())
    }

    async fn open_at(
        &mut self,
        folder: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let slot = self.slot()?;
        let Some(quota) = self.quota(&folder) else {
            let opened = self.wasi.open_at(folder, path_flags, path, open_flags, flags).await?;
            self.files.held.insert(opened.rep(), Held { quota: None, open: None, _slot: slot });
            return Ok(opened);
        };
        let _turn = quota.turn().await;
        let (creates, cuts) =
            (open_flags.contains(OpenFlags::CREATE), open_flags.contains(OpenFlags::TRUNCATE));
        let before = if creates || cuts { self.look(&folder, path_flags, &path).await } else { None };
        if creates && before.is_none() {
            quota.has_room_for_entry(0).await.map_err(|_hit| ErrorCode::InsufficientSpace)?;
        }
        let opened = self.wasi.open_at(folder, path_flags, path, open_flags, flags).await?;
        match before {
            None if creates => quota.entry_made(),
            Some((stat, _)) if cuts && stat.type_ == DescriptorType::RegularFile => {
                quota.truncated(stat.size)
            }
            _ => {}
        }
        let open = match self.wasi.table.get(&opened)? {
            Descriptor::Dir(_) => None,
            Descriptor::File(file) => {
                let file = Arc::clone(&file.file);
                let hash = self.wasi.metadata_hash(again(&opened)).await?;
                Some(quota.open(file, key(&hash)))
            }
        };
        self.files.held.insert(opened.rep(), Held { quota: Some(Arc::clone(&quota)), open, _slot: slot });
        Ok(opened)
    }

    fn drop(&mut self, descriptor: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.files.held.remove(&descriptor.rep());
        HostDescriptor::drop(&mut self.wasi, descriptor)
    }

    async fn readlink_at(&mut self, folder: Resource<Descriptor>, path: String) -> FsResult<String> {
        self.wasi.readlink_at(folder, path).await
    }

    async fn remove_directory_at(&mut self, folder: Resource<Descriptor>, path: String) -> FsResult<()> {
        let Some(quota) = self.quota(&folder) else {
            return self.wasi.remove_directory_at(folder, path).await;
        };
        let _turn = quota.turn().await;
        self.wasi.remove_directory_at(folder, path).await?;
        quota.entry_removed();
        Ok(())
    }

    async fn rename_at(
        &mut self,
        old_folder: Resource<Descriptor>,
        old_path: String,
        new_folder: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let (quota, other) = match (self.quota(&old_folder), self.quota(&new_folder)) {
            (None, None) => return self.wasi.rename_at(old_folder, old_path, new_folder, new_path).await,
            (Some(quota), Some(other)) => (quota, other),
            // From a grant to another of different rights.
            _ => return Err(ErrorCode::NotPermitted.into()),
        };
        if !Arc::ptr_eq(&quota, &other) {
            return Err(ErrorCode::CrossDevice.into());
        }
        let _turn = quota.turn().await;
        let moved = self.look(&old_folder, PathFlags::empty(), &old_path).await;
        let replaced = self.look(&new_folder, PathFlags::empty(), &new_path).await;
        self.wasi.rename_at(old_folder, old_path, new_folder, new_path).await?;
        if let (Some((_, moved)), Some((stat, hash))) = (moved, replaced)
            && key(&moved) != key(&hash)
        {
            Self::count_removed(&quota, &stat, &hash);
        }
        Ok(())
    }

    async fn symlink_at(
        &mut self,
        folder: Resource<Descriptor>,
        target: String,
        path: String,
    ) -> FsResult<()> {
        let Some(quota) = self.quota(&folder) else {
            return self.wasi.symlink_at(folder, target, path).await;
        };
        let _turn = quota.turn().await;
        let length = target.len() as u64;
        quota.has_room_for_entry(length).await.map_err(|_hit| ErrorCode::InsufficientSpace)?;
        quota.take_length(length).map_err(|_hit| ErrorCode::InsufficientSpace)?;
        let made = self.wasi.symlink_at(folder, target, path).await;
        match &made {
            Ok(()) => quota.entry_made(),
            Err(_) => quota.truncated(length),
        }
        made
    }

    async fn unlink_file_at(&mut self, folder: Resource<Descriptor>, path: String) -> FsResult<()> {
        let Some(quota) = self.quota(&folder) else { return self.wasi.unlink_file_at(folder, path).await };
        let _turn = quota.turn().await;
        let before = self.look(&folder, PathFlags::empty(), &path).await;
        self.wasi.unlink_file_at(folder, path).await?;
        if let Some((stat, hash)) = before {
            Self::count_removed(&quota, &stat, &hash);
        }
        Ok(())
    }

    fn read_via_stream(
        &mut self,
        file: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let (slot, open) = (self.slot()?, self.open_file(&file));
        let stream = self.wasi.read_via_stream(file, offset)?;
        let inner = self.wasi.table.delete(stream)?;
        let held: DynInputStream = Box::new(HeldInput { inner, _open: open, _slot: slot });
        Ok(self.wasi.table.push(held)?)
    }

    fn write_via_stream(
        &mut self,
        file: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        let slot = self.slot()?;
        match self.open_file(&file) {
            None => self.wasi.write_via_stream(file, offset),
            Some(open) => self.push_writer(open, Some(offset), slot),
        }
    }

    fn append_via_stream(&mut self, file: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        let slot = self.slot()?;
        match self.open_file(&file) {
            None => self.wasi.append_via_stream(file),
            Some(open) => self.push_writer(open, None, slot),
        }
    }

    async fn is_same_object(
        &mut self,
        one: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        self.wasi.is_same_object(one, other).await
    }

    async fn metadata_hash(&mut self, descriptor: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        self.wasi.metadata_hash(descriptor).await
    }

    async fn metadata_hash_at(
        &mut self,
        folder: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        self.wasi.metadata_hash_at(folder, flags, path).await
    }
}

impl FilesView<'_> {
    fn push_writer(
        &mut self,
        open: Arc<OpenFile>,
        position: Option<u64>,
        slot: Slot,
    ) -> FsResult<Resource<DynOutputStream>> {
        let writer: DynOutputStream = Box::new(Writer { open, position, state: State::Ready, _slot: slot });
        Ok(self.wasi.table.push(writer)?)
    }
}

impl HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.wasi.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        HostDirectoryEntryStream::drop(&mut self.wasi, stream)
    }
}

/// A stream that reads, as wasmtime makes it, which keeps its file counted.
struct HeldInput {
    inner: DynInputStream,
    _open: Option<Arc<OpenFile>>,
    _slot: Slot,
}

#[async_trait]
impl InputStream for HeldInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.inner.read(size)
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.inner.blocking_read(size).await
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

#[async_trait]
impl Pollable for HeldInput {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

/// A stream that writes to a file which is counted.
struct Writer {
    open: Arc<OpenFile>,
    /// Where the next byte goes; at the end if absent.
    position: Option<u64>,
    state: State,
    _slot: Slot,
}

enum State {
    Ready,
    Writing(JoinHandle<io::Result<u64>>),
    Failed(io::Error),
    Closed,
}

impl Writer {
    fn start(&mut self, bytes: Bytes) {
        let (open, position) = (Arc::clone(&self.open), self.position);
        self.state = State::Writing(tokio::task::spawn_blocking(move || write_all(&open, position, &bytes)));
    }

    async fn settle(&mut self) {
        let State::Writing(task) = &mut self.state else { return };
        self.state = match task.await {
            Ok(Ok(written)) => {
                self.position = self.position.map(|position| position.saturating_add(written));
                State::Ready
            }
            Ok(Err(failure)) => State::Failed(failure),
            Err(failure) => State::Failed(io::Error::other(failure)),
        };
    }

    /// Returns the error that ended the stream, once, and then that it is closed.
    fn failed(&mut self) -> StreamError {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Failed(failure) => StreamError::LastOperationFailed(failure.into()),
            _ => StreamError::Closed,
        }
    }
}

fn write_all(open: &OpenFile, position: Option<u64>, bytes: &[u8]) -> io::Result<u64> {
    let length = bytes.len() as u64;
    let end = |now: u64| position.unwrap_or(now).saturating_add(length);
    open.change(end, |file| {
        let start = match position {
            Some(position) => position,
            None => file.metadata()?.len(),
        };
        file.write_all_at(bytes, start)
    })?;
    Ok(length)
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match &self.state {
            State::Ready => {
                self.start(bytes);
                Ok(())
            }
            State::Closed => Err(StreamError::Closed),
            State::Writing(_) | State::Failed(_) => {
                Err(StreamError::Trap(wasmtime::format_err!("a write that check-write did not permit")))
            }
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        match &self.state {
            State::Ready | State::Writing(_) => Ok(()),
            State::Failed(_) | State::Closed => Err(self.failed()),
        }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match &self.state {
            State::Ready => Ok(MAX_WRITE),
            State::Writing(_) => Ok(0),
            State::Failed(_) | State::Closed => Err(self.failed()),
        }
    }

    async fn cancel(&mut self) {
        self.settle().await;
        self.state = State::Closed;
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        self.settle().await;
    }
}
