//! Where the statements about an app's components are, and their signatures: in `signatures` beside its manifest, one pair
//! of files for each workload, as `dunlin sign` writes them and `minisign -V` reads them.

use std::io::Read as _;
use std::path::Path;
use std::{fs, io};

use dunlin_model::{Digest, Name, Signed, Statement};

use super::gather::Place;
use crate::error::CommandError;

/// The most bytes of a file of these; the coordinator takes less.
const MAX_FILE: u64 = 64 << 10;

/// Returns the paths of the statement about a workload's component and of its signature, relative to the manifest.
pub(crate) fn signature_files(workload: &Name) -> [String; 2] {
    let statement = format!("signatures/{workload}.toml");
    [statement.clone(), format!("{statement}.minisig")]
}

/// Returns what is signed of a workload's component, if anything is.
pub(super) fn signed(place: &Place<'_>, workload: &Name) -> Result<Option<Box<Signed>>, CommandError> {
    let [statement, signature] = signature_files(workload);
    let (Some(statement), Some(signature)) = (read(place, &statement)?, read(place, &signature)?) else {
        return Ok(None);
    };
    Ok(Some(Box::new(Signed { statement, signature })))
}

/// Tells whether it is another component that was signed.
pub(super) fn is_stale(signed: &Signed, component: Digest) -> bool {
    Statement::parse(&signed.statement).is_some_and(|stated| stated.component != component)
}

fn read(place: &Place<'_>, path: &str) -> Result<Option<String>, CommandError> {
    match place {
        Place::Artifact(files) => {
            Ok(files.get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        }
        Place::Files { folder, .. } => read_file(&folder.join(path)),
    }
}

fn read_file(path: &Path) -> Result<Option<String>, CommandError> {
    let read = fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text)?;
        Ok(text)
    });
    match read {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CommandError::failed(format!("cannot read {}", path.display()))
            .caused_by(&error)
            .help("`dunlin sign` writes it anew")),
    }
}
