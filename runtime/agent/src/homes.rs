//! What belongs to each worker process on this node: its folder, its user and its key.
//!
//! A home holds all files that a worker may touch: `compiled` and `inputs`, which it may read, and `scratch.NUMBER`,
//! which is its own. A worker enters its home before it gives up its rights, and all paths in its messages begin there, so
//! it does not matter what its user may do with the folders above.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dunlin_compiled::CodeKey;
use dunlin_model::Name;
use nix::unistd::{Gid, Uid, chown};
use sha2::{Digest as _, Sha256};

use crate::settings::Isolation;
use crate::wall::Users;

/// In a home: code, which the agent puts there.
const COMPILED: &str = "compiled";
/// In a home: inputs of items.
const INPUTS: &str = "inputs";
/// In a home: how the folder with what guests write begins.
const SCRATCH: &str = "scratch";
/// Whose home it is where all namespaces share one; their names are kept in another folder.
const SHARED: &str = "shared";

/// The homes on this node.
#[derive(Debug)]
pub(crate) struct Homes {
    root: PathBuf,
    node_key: [u8; 32],
    isolation: Isolation,
    users: Option<Users>,
    /// How the folder with what guests write is called.
    scratch: String,
}

/// The home of one worker process.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) folder: PathBuf,
    /// Who knows it can forge code for this home only.
    pub(crate) code_key: CodeKey,
    /// Absent if the agent cannot give one.
    pub(crate) user: Option<u32>,
    scratch: String,
}

impl Homes {
    /// Returns the homes below `root`. Inputs and scratch of other agents' processes are removed, unless some of those
    /// still run.
    pub(crate) fn open(
        root: &Path,
        node_key: [u8; 32],
        isolation: Isolation,
        users: Option<Users>,
        has_former: bool,
    ) -> io::Result<Self> {
        let root = root.join(match isolation {
            Isolation::Namespace => "by-namespace",
            Isolation::Shared => SHARED,
        });
        DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        // Another one for each start: a worker that outlived the agent before still has its own.
        let scratch = format!("{SCRATCH}.{:016x}", getrandom::u64().map_err(io::Error::other)?);
        let homes = Self { root, node_key, isolation, users, scratch };
        for home in homes.folders()? {
            if !has_former {
                clear(&home)?;
            }
        }
        Ok(homes)
    }

    /// Returns who lives together with the guests of `namespace`: its own name, or the name of all.
    pub(crate) fn owner(&self, namespace: &Name) -> Name {
        match self.isolation {
            Isolation::Namespace => namespace.clone(),
            Isolation::Shared => SHARED.parse().expect("it follows the rules of names"),
        }
    }

    /// Returns the namespace whose guests alone live there.
    pub(crate) fn only_namespace(&self, owner: &Name) -> Option<Name> {
        match self.isolation {
            Isolation::Namespace => Some(owner.clone()),
            Isolation::Shared => None,
        }
    }

    /// Returns the home of `owner`, which is made if it is not there.
    pub(crate) fn home(&self, owner: &Name) -> io::Result<Home> {
        let tag = match self.isolation {
            Isolation::Namespace => "namespace",
            Isolation::Shared => "all namespaces",
        };
        let user = self.users.as_ref().map(|users| users.of(&format!("{tag}/{owner}"))).transpose()?;
        let mut hash = Sha256::new_with_prefix(format!("dunlin compiled code of a {tag}"));
        hash.update(self.node_key);
        hash.update(owner.as_str());
        let (folder, scratch) = (self.root.join(owner.as_str()), self.scratch.clone());
        let home = Home { folder, code_key: CodeKey(hash.finalize().into()), user, scratch };
        home.furnish()?;
        Ok(home)
    }

    /// Returns the folders with compiled code of all homes.
    pub(crate) fn compiled(&self) -> io::Result<Vec<PathBuf>> {
        Ok(self.folders()?.into_iter().map(|home| home.join(COMPILED)).collect())
    }

    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.root)?.map(|entry| Ok(entry?.path())).collect()
    }
}

impl Home {
    /// Makes the folders, each open to the worker's group as far as the worker needs it, and to nobody else.
    fn furnish(&self) -> io::Result<()> {
        let group = self.user.map(Gid::from_raw);
        let readable = if group.is_some() { 0o750 } else { 0o700 };
        for (folder, mode, owner) in [
            (self.folder.clone(), readable, None),
            (self.folder.join(COMPILED), readable, None),
            (self.folder.join(INPUTS), readable, None),
            (self.folder.join(&self.scratch), 0o700, self.user.map(Uid::from_raw)),
        ] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            chown(&folder, owner, group)?;
            fs::set_permissions(&folder, Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Returns the folder of compiled code, for the agent.
    pub(crate) fn compiled_folder(&self) -> PathBuf {
        self.folder.join(COMPILED)
    }

    /// Returns the file `name` of compiled code, for the agent.
    pub(crate) fn compiled(&self, name: &str) -> PathBuf {
        self.compiled_folder().join(name)
    }

    /// Returns the file `name` of an input, for the agent.
    pub(crate) fn input(&self, name: &str) -> PathBuf {
        self.folder.join(INPUTS).join(name)
    }

    /// Returns a path in this home as its worker sees it.
    pub(crate) fn seen_within(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.folder).unwrap_or(path).to_owned()
    }

    /// Returns what its worker may read, as it sees it.
    pub(crate) fn readable(&self) -> Vec<PathBuf> {
        vec![COMPILED.into(), INPUTS.into()]
    }

    /// Returns the folder which its worker may change, as it sees it.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.scratch.clone().into()
    }
}

/// Removes inputs and scratch from a home.
fn clear(home: &Path) -> io::Result<()> {
    for entry in fs::read_dir(home)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name == INPUTS || name.starts_with(SCRATCH) {
            match fs::remove_dir_all(home.join(&*name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Lets the worker read a file which the agent has put into its home: the folder around it keeps others out.
pub(crate) fn share(file: &fs::File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homes(isolation: Isolation, root: &Path) -> Homes {
        Homes::open(root, [1; 32], isolation, None, false).unwrap()
    }

    #[test]
    fn namespaces_share_a_home_only_if_the_node_says_so() {
        let root = tempfile::tempdir().unwrap();
        let (a, b): (Name, Name) = ("a".parse().unwrap(), "shared".parse().unwrap());
        let apart = homes(Isolation::Namespace, root.path());
        let together = homes(Isolation::Shared, root.path());
        assert_ne!(apart.owner(&a), apart.owner(&b));
        assert_eq!(together.owner(&a), together.owner(&b));
        let homes = [
            apart.home(&apart.owner(&a)).unwrap(),
            apart.home(&apart.owner(&b)).unwrap(),
            together.home(&together.owner(&a)).unwrap(),
        ];
        for (index, home) in homes.iter().enumerate() {
            for other in &homes[..index] {
                assert_ne!(home.folder, other.folder);
                assert_ne!(home.code_key, other.code_key);
            }
        }
    }

    #[test]
    fn code_outlives_an_agent_and_inputs_do_not() {
        let root = tempfile::tempdir().unwrap();
        let owner: Name = "a".parse().unwrap();
        let home = homes(Isolation::Namespace, root.path()).home(&owner).unwrap();
        for path in [home.compiled("code"), home.input("input")] {
            fs::write(path, b"").unwrap();
        }
        fs::write(home.folder.join(home.scratch()).join("file"), b"").unwrap();
        // One that outlives the agent keeps what it has, and is not in the way of another.
        let beside = Homes::open(root.path(), [1; 32], Isolation::Namespace, None, true).unwrap();
        assert!(home.folder.join(home.scratch()).join("file").exists());
        assert_ne!(beside.home(&owner).unwrap().scratch(), home.scratch());
        let before = home.folder.join(home.scratch());
        let home = homes(Isolation::Namespace, root.path()).home(&owner).unwrap();
        assert!(home.compiled("code").exists());
        assert!(!home.input("input").exists() && !before.exists());
        assert_eq!(home.seen_within(&home.compiled("code")), Path::new("compiled/code"));
    }
}
