//! Where the statements about an app's components are, and their signatures: in `signatures` beside its manifest, one pair
//! of files for each workload, as `dunlin sign` writes them and `minisign -V` reads them.

use std::io::{self, Read as _};
use std::path::Path;
use std::{fs, str};

use dunlin_model::{AppSpec, Name, Signed, Statement};

use super::gather::Place;
use crate::output::Output;

/// The most bytes of a file of these that are read; the coordinator takes less.
const MAX_FILE: u64 = 64 << 10;

/// Returns the paths of the statement about a workload's component and of its signature, relative to the manifest.
pub(crate) fn signature_files(workload: &Name) -> [String; 2] {
    let statement = format!("signatures/{workload}.toml");
    [statement.clone(), format!("{statement}.minisig")]
}

/// Returns what is signed of a workload's component, if anything is. What cannot be read is told and counts for nothing:
/// whether a signature is needed is the fleet's to say.
pub(super) fn signed(place: &Place<'_>, workload: &Name, output: &Output) -> Option<Box<Signed>> {
    let [statement, signature] = signature_files(workload).map(|path| {
        read(place, &path).map_err(|error| {
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                output.note(&format!("{path} counts for nothing, as it cannot be read: {error}"));
            }
        })
    });
    Some(Box::new(Signed { statement: statement.ok()?, signature: signature.ok()? }))
}

/// Says of which workloads another component was signed than the one that is sent.
pub(super) fn note_stale(spec: &AppSpec, output: &Output) {
    for (name, workload) in &spec.workloads {
        let stated = workload.signed.as_ref().and_then(|signed| Statement::parse(&signed.statement));
        if stated.is_some_and(|stated| stated.component != workload.component) {
            output.note(&format!(
                "the component of `{name}` is another one than was signed: `dunlin sign` signs it anew"
            ));
        }
    }
}

fn read(place: &Place<'_>, path: &str) -> io::Result<String> {
    match place {
        Place::Artifact(files) => {
            let bytes = files.get(path).ok_or(io::ErrorKind::NotFound)?;
            str::from_utf8(bytes).map(str::to_owned).map_err(io::Error::other)
        }
        Place::Files { folder, .. } => read_file(&folder.join(path)),
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}
