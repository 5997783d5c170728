//! Files with keys in them: readable by their owner alone, and never half written.
//!
//! Key and certificates stand in one file, so that no crash can leave the key of one beside the certificate of
//! another. Its last line has the SHA-256 of all before it: a certificate in which a disk has turned a bit over may still
//! look like one, and is refused by everybody else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use dunlin_planted::{Bug, planted};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};

/// Why a file with keys could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("could not read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error("could not write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// It is not as it was written.
    #[error(
        "{path} is damaged: it is not as it was written; put it back from a copy",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{path} holds a key and others may read it; it must have mode 600", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// Writes `text` to `path` under another name first, syncs it and renames it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let unfinished = path.with_extension("pem.new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // `create_new` refuses a link or a file of someone else that stands there.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
    file.write_all(with_sum(text).as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Reads a file that [`write`] wrote.
pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| FileError::Damaged { path: path.to_owned() })?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned() });
    }
    if !is_as_written(&text) && !planted(Bug::BelieveDamagedKeys) {
        return Err(FileError::Damaged { path: path.to_owned() });
    }
    Ok(text)
}

/// What the last line of a file begins with.
const SUM: &str = "# SHA-256 ";

fn with_sum(text: &str) -> String {
    format!("{text}{SUM}{}\n", hex::encode(Sha256::digest(text)))
}

/// Tells whether a text is what [`with_sum`] made. One that ends with its last section is of an earlier build.
fn is_as_written(text: &str) -> bool {
    match text.find(SUM) {
        Some(end) => text == with_sum(&text[..end]),
        None => text.ends_with("-----\n"),
    }
}

/// Removes a file that [`write`] wrote, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Returns the PEM of a key and its certificates.
pub(crate) fn to_pem(key: &PrivatePkcs8KeyDer<'_>, certificates: &[&CertificateDer<'_>]) -> String {
    let mut text = pem_section("PRIVATE KEY", key.secret_pkcs8_der());
    for certificate in certificates {
        text.push_str(&certificate_pem(certificate));
    }
    text
}

/// Returns the PEM of a certificate.
pub(crate) fn certificate_pem(certificate: &[u8]) -> String {
    pem_section("CERTIFICATE", certificate)
}

/// Returns the first key of a PEM text and all its certificates.
pub(crate) fn from_pem(text: &str) -> Option<(PrivatePkcs8KeyDer<'static>, Vec<CertificateDer<'static>>)> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().ok()?;
    Some((key, certificates))
}

fn pem_section(label: &str, bytes: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in bytes.chunks(48) {
        base64(line, &mut text);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Base64 with padding (RFC 4648): too little to be worth a dependency.
fn base64(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4_usize {
            if digit <= chunk.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            let mut text = String::new();
            base64(bytes.as_bytes(), &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_file_in_which_a_bit_is_not_as_it_was_is_refused_and_one_of_an_earlier_build_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = PrivatePkcs8KeyDer::from(vec![0xff; 100]);
        let text = to_pem(&key, &[&CertificateDer::from(vec![0xa5; 300])]);
        write(&path, &text).unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(from_pem(&read(&path).unwrap()).unwrap().0, key);
        for bit in 0..text.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let refused = read(&path).unwrap_err().to_string();
            assert!(refused.contains("key.pem is damaged"), "bit {bit}: {refused}");
        }
        fs::write(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap(), text);
    }

    #[test]
    fn pem_reads_back_what_it_prints() {
        for length in [1, 47, 48, 49, 1000] {
            let key = PrivatePkcs8KeyDer::from(vec![0xff; length]);
            let certificate = CertificateDer::from(vec![0xa5; length]);
            let (read, certificates) = from_pem(&to_pem(&key, &[&certificate, &certificate])).unwrap();
            assert_eq!(read.secret_pkcs8_der(), key.secret_pkcs8_der());
            assert_eq!(certificates, [certificate.clone(), certificate]);
        }
        assert!(from_pem("nothing").is_none());
    }
}
