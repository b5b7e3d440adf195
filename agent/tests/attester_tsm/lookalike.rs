//! A FUSE look-alike of configfs-tsm, following Linux's drivers/virt/coco/guest/report.c and fs/configfs/file.c.
//!
//! It signs nothing: its reports are a real machine's with our REPORT_DATA put in. A test may see every access before it
//! happens and change what follows.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

/// Largest input (`TSM_REPORT_INBLOB_MAX`).
const INBLOB_MAX: usize = 64;
/// Attributes; a request's directory has inode `n * 16`, its attributes follow in this order.
const ATTRIBUTES: [&str; 7] =
    ["provider", "generation", "inblob", "outblob", "auxblob", "privlevel", "privlevel_floor"];
const TTL: Duration = Duration::ZERO;

/// What the look-alike does at one access.
pub(crate) enum Act {
    /// What the kernel does.
    Genuine,
    /// Another writer changes something first: the generation moves on.
    Interfere,
    /// Another writer puts his statement in first: the generation moves on, and reports are his.
    Usurp,
    /// The access fails.
    Fail(Errno),
    /// The access never ends, or not before [`LookAlike::release`].
    Hang,
    /// The access takes that long.
    Slow(Duration),
    /// A read gives these bytes instead.
    Give(Vec<u8>),
    /// A read gives zeros and never ends.
    Endless,
    /// A write is taken and forgotten.
    Ignore,
}

/// The machine behind the look-alike.
pub(crate) struct Machine {
    /// The attribute `provider`, without its line end; `None` when no driver is registered.
    pub(crate) provider: Option<&'static str>,
    /// The attribute `privlevel_floor`; `None` when the provider has no levels.
    pub(crate) floor: Option<u32>,
    /// The report for a statement and a level.
    pub(crate) report: fn(&[u8], u32) -> Vec<u8>,
    /// The attribute `auxblob`; `None` when the provider has none.
    pub(crate) auxblob: Option<Vec<u8>>,
    /// Decides on each access: `mkdir`, `rmdir`, `read outblob`, `write inblob`, …
    pub(crate) on: Box<dyn FnMut(&str) -> Act + Send>,
}

/// A mounted look-alike.
pub(crate) struct LookAlike {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    dir: tempfile::TempDir,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    machine: Machine,
    requests: BTreeMap<u64, TsmRequest>,
    files: BTreeMap<u64, OpenFile>,
    hanging: Vec<(ReplyData, Vec<u8>)>,
    names: Vec<String>,
    log: Vec<String>,
    next: u64,
}

struct TsmRequest {
    name: String,
    generation: u64,
    inblob: Vec<u8>,
    level: u32,
}

/// Configfs reads a whole attribute when a file is first read, and hands a binary one over when it is closed.
struct OpenFile {
    request: u64,
    attribute: &'static str,
    content: Option<Vec<u8>>,
    endless: bool,
    written: Option<Vec<u8>>,
}

impl LookAlike {
    /// Mounts it. The error says why FUSE is not available here.
    pub(crate) fn mount(machine: Machine) -> io::Result<Self> {
        let state = State {
            machine,
            requests: BTreeMap::new(),
            files: BTreeMap::new(),
            hanging: Vec::new(),
            names: Vec::new(),
            log: Vec::new(),
            next: 1,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let dir = tempfile::tempdir()?;
        let session = fuser::spawn_mount(Mounted(Arc::clone(&shared)), dir.path(), &fuser::Config::default())?;
        Ok(Self { shared, session: Some(session), dir })
    }

    /// The directory in which requests are made.
    pub(crate) fn reports(&self) -> &Path {
        self.dir.path()
    }

    /// Names of all requests ever made.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names.clone()
    }

    /// Every access so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Requests that exist.
    pub(crate) fn live(&self) -> usize {
        self.state().requests.len()
    }

    /// Lets every hanging read end with what it should have given, and waits until no request is left.
    pub(crate) fn release(&self) {
        let hanging = std::mem::take(&mut self.state().hanging);
        for (reply, content) in hanging {
            reply.data(&content);
        }
        let none_left = |state: &mut State| !state.requests.is_empty();
        let wait = self.shared.changed.wait_timeout_while(self.state(), Duration::from_secs(10), none_left).unwrap();
        assert!(!wait.1.timed_out(), "requests are left: {:?}", wait.0.names);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for LookAlike {
    fn drop(&mut self) {
        let hanging = std::mem::take(&mut self.shared.state.lock().unwrap().hanging);
        for (reply, _) in hanging {
            reply.error(Errno::EIO);
        }
        // A thread that just came free must close its file before the unmount.
        thread::sleep(Duration::from_millis(20));
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

struct Mounted(Arc<Shared>);

impl Mounted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

impl State {
    /// Asks the test what happens now, and lets the other writer act.
    fn act(&mut self, access: &str, request: Option<u64>) -> Act {
        self.log.push(access.to_owned());
        let act = (self.machine.on)(access);
        let request = request.and_then(|request| self.requests.get_mut(&request));
        match (&act, request) {
            (Act::Interfere, Some(request)) => request.generation += 1,
            (Act::Usurp, Some(request)) => {
                request.generation += 1;
                request.inblob = vec![0xEE; INBLOB_MAX];
            }
            (Act::Slow(time), _) => thread::sleep(*time),
            _ => {}
        }
        act
    }

    fn has(&self, attribute: &str) -> bool {
        match attribute {
            "auxblob" => self.machine.auxblob.is_some(),
            "privlevel" | "privlevel_floor" => self.machine.floor.is_some(),
            _ => true,
        }
    }

    fn content(&self, request: u64, attribute: &str) -> Result<Vec<u8>, Errno> {
        let request = self.requests.get(&request).ok_or(Errno::ENOENT)?;
        let provider = self.machine.provider.ok_or(Errno::ENXIO)?;
        match attribute {
            "provider" => Ok(format!("{provider}\n").into_bytes()),
            "generation" => Ok(format!("{}\n", request.generation).into_bytes()),
            "privlevel_floor" => Ok(format!("{}\n", self.machine.floor.unwrap_or(0)).into_bytes()),
            "outblob" | "auxblob" if request.inblob.is_empty() => Err(Errno::EINVAL),
            "outblob" => Ok((self.machine.report)(&request.inblob, request.level)),
            "auxblob" => Ok(self.machine.auxblob.clone().unwrap_or_default()),
            _ => Err(Errno::EACCES),
        }
    }

    /// `tsm_report_privlevel_store`: text, at least the floor, at most 3.
    fn set_level(&mut self, request: u64, text: &[u8]) -> Result<(), Errno> {
        let text = str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        let level: u32 = text.trim_end().parse().map_err(|_| Errno::EINVAL)?;
        if level < self.machine.floor.unwrap_or(0) || level > 3 {
            return Err(Errno::EINVAL);
        }
        let request = self.requests.get_mut(&request).ok_or(Errno::ENOENT)?;
        request.level = level;
        request.generation += 1;
        Ok(())
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        let name = name.to_str().unwrap_or_default();
        let ino = if parent == INodeNo::ROOT {
            state.requests.iter().find(|(_, request)| request.name == name).map(|(n, _)| n * 16)
        } else {
            let index = ATTRIBUTES.iter().position(|known| *known == name && state.has(name));
            index.map(|index| parent.0 + 1 + u64::try_from(index).unwrap())
        };
        match ino {
            Some(ino) => reply.entry(&TTL, &attr(ino), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino.0));
    }

    fn mkdir(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let mut state = self.state();
        if let Act::Fail(errno) = state.act("mkdir", None) {
            return reply.error(errno);
        }
        if state.machine.provider.is_none() {
            return reply.error(Errno::ENXIO);
        }
        let n = state.next;
        state.next += 1;
        let name = name.to_str().unwrap_or_default().to_owned();
        state.names.push(name.clone());
        state.requests.insert(n, TsmRequest { name, generation: 0, inblob: Vec::new(), level: 0 });
        reply.entry(&TTL, &attr(n * 16), Generation(0));
    }

    fn rmdir(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        if let Act::Fail(errno) = state.act("rmdir", None) {
            return reply.error(errno);
        }
        state.requests.retain(|_, request| OsStr::new(&request.name) != name);
        self.0.changed.notify_all();
        reply.ok();
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.state();
        let Some(attribute) = usize::try_from(ino.0 % 16).ok().and_then(|n| ATTRIBUTES.get(n.wrapping_sub(1))) else {
            return reply.error(Errno::EISDIR);
        };
        let handle = state.next;
        state.next += 1;
        let file = OpenFile { request: ino.0 / 16, attribute, content: None, endless: false, written: None };
        state.files.insert(handle, file);
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.state();
        let Some(file) = state.files.get(&fh.0) else { return reply.error(Errno::EBADF) };
        let (request, attribute) = (file.request, file.attribute);
        let size = usize::try_from(size).unwrap();
        if file.endless {
            return reply.data(&vec![0; size]);
        }
        if file.content.is_none() {
            let act = state.act(&format!("read {attribute}"), Some(request));
            let content = match act {
                Act::Fail(errno) => return reply.error(errno),
                Act::Give(ref content) => Ok(content.clone()),
                Act::Endless => {
                    state.files.get_mut(&fh.0).unwrap().endless = true;
                    return reply.data(&vec![0; size]);
                }
                _ => state.content(request, attribute),
            };
            let content = match content {
                Ok(content) => content,
                Err(errno) => return reply.error(errno),
            };
            if matches!(act, Act::Hang) {
                let first = content[..content.len().min(size)].to_vec();
                state.files.get_mut(&fh.0).unwrap().content = Some(content);
                state.hanging.push((reply, first));
                return;
            }
            state.files.get_mut(&fh.0).unwrap().content = Some(content);
        }
        let content = state.files[&fh.0].content.as_deref().unwrap();
        let rest = content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        reply.data(&rest[..rest.len().min(size)]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        let Some(file) = state.files.get(&fh.0) else { return reply.error(Errno::EBADF) };
        let (request, attribute) = (file.request, file.attribute);
        let act = state.act(&format!("write {attribute}"), Some(request));
        let size = u32::try_from(data.len()).unwrap();
        let result = match (act, attribute) {
            (Act::Fail(errno), _) => Err(errno),
            (Act::Ignore, _) => Ok(()),
            (_, "privlevel") => state.set_level(request, data),
            (_, "inblob") if data.len() > INBLOB_MAX => Err(Errno::EFBIG),
            (_, "inblob") => {
                state.files.get_mut(&fh.0).unwrap().written.get_or_insert_default().extend(data);
                Ok(())
            }
            _ => Err(Errno::EACCES),
        };
        match result {
            Ok(()) => reply.written(size),
            Err(errno) => reply.error(errno),
        }
    }

    /// `close`: only now a binary attribute is stored, as configfs does in its release.
    fn flush(&self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let mut state = self.state();
        let written = state.files.get_mut(&fh.0).and_then(|file| Some((file.request, file.written.take()?)));
        if let Some((request, bytes)) = written
            && let Some(request) = state.requests.get_mut(&request)
        {
            request.inblob = bytes;
            request.generation += 1;
        }
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state().files.remove(&fh.0);
        reply.ok();
    }
}

/// Sizes as configfs shows them: one page for text, nothing for a binary attribute.
fn attr(ino: u64) -> FileAttr {
    let directory = ino == INodeNo::ROOT.0 || ino.is_multiple_of(16);
    FileAttr {
        ino: INodeNo(ino),
        size: 4096,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if directory { FileType::Directory } else { FileType::RegularFile },
        perm: if directory { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
