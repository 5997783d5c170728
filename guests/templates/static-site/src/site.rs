//! The files of a site, which are a part of the component.
//!
//! A path is looked up among theirs and never opened, so that none leads out of the folder.

/// A file of the site.
#[derive(Debug, PartialEq)]
pub struct File {
    /// Where it is, from the root of the site: `/style.css`.
    pub path: &'static str,
    /// What changes with its bytes, in quotes.
    pub etag: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

/// All files of a site, sorted by path.
pub struct Site(pub &'static [File]);

/// The files of the folder `site/`.
pub static SITE: Site = Site(include!(concat!(env!("OUT_DIR"), "/files.rs")));

/// What a path of a request leads to.
#[derive(Debug, PartialEq)]
pub enum Found {
    File(&'static File),
    /// A folder with an `index.html`, whose path must end in a slash so that the links in it are right.
    Folder,
    Nothing,
}

impl Site {
    /// Looks up the path of a request.
    pub fn find(&self, path: &str) -> Found {
        let Some(path) = decoded(path) else {
            return Found::Nothing;
        };
        let file = if path.ends_with('/') {
            self.file(&format!("{path}index.html"))
        } else {
            self.file(&path)
        };
        match file {
            Some(file) => Found::File(file),
            None if self.file(&format!("{path}/index.html")).is_some() => Found::Folder,
            None => Found::Nothing,
        }
    }

    /// Returns the file with this very path.
    pub fn file(&self, path: &str) -> Option<&'static File> {
        let place = self.0.binary_search_by(|file| file.path.cmp(path)).ok()?;
        self.0.get(place)
    }
}

impl File {
    /// Returns what kind of file it is, by the ending of its name.
    pub fn content_type(&self) -> &'static str {
        match self.path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js" | "mjs") => "text/javascript; charset=utf-8",
            Some("txt") => "text/plain; charset=utf-8",
            Some("md") => "text/markdown; charset=utf-8",
            Some("xml") => "text/xml; charset=utf-8",
            Some("json") => "application/json",
            Some("webmanifest") => "application/manifest+json",
            Some("pdf") => "application/pdf",
            Some("wasm") => "application/wasm",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("jpg" | "jpeg") => "image/jpeg",
            Some("gif") => "image/gif",
            Some("webp") => "image/webp",
            Some("avif") => "image/avif",
            Some("ico") => "image/x-icon",
            Some("woff2") => "font/woff2",
            Some("mp4") => "video/mp4",
            Some("mp3") => "audio/mpeg",
            _ => "application/octet-stream",
        }
    }
}

/// Returns the path with each `%41` as the byte it means, if that is text.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || {
                char::from(rest.next()?)
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            };
            bytes.push(digit()? * 16 + digit()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A site for tests: what they find must not depend on what is in the folder.
#[cfg(test)]
pub const SMALL: Site = Site(&[
    small("/404.html", "\"a\"", b"nothing here"),
    small("/index.html", "\"b\"", b"home"),
    small("/posts/index.html", "\"c\"", b"posts"),
    small("/style.css", "\"d\"", b"p { margin: 0 }"),
]);

#[cfg(test)]
const fn small(path: &'static str, etag: &'static str, bytes: &'static [u8]) -> File {
    File { path, etag, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str) -> Found {
        SMALL.find(path)
    }

    fn path(found: Found) -> Option<&'static str> {
        match found {
            Found::File(file) => Some(file.path),
            Found::Folder | Found::Nothing => None,
        }
    }

    #[test]
    fn a_path_leads_to_its_file_and_a_folder_to_its_index() {
        assert_eq!(path(find("/style.css")), Some("/style.css"));
        assert_eq!(path(find("/%73tyle.css")), Some("/style.css"));
        assert_eq!(path(find("/")), Some("/index.html"));
        assert_eq!(path(find("/posts/")), Some("/posts/index.html"));
        assert_eq!(find("/posts"), Found::Folder);
    }

    #[test]
    fn no_path_leads_out_of_the_site() {
        for path in [
            "//",
            "/../Cargo.toml",
            "/%2e%2e/Cargo.toml",
            "/posts/../index.html",
            "/style.css/",
            "/%",
            "/%ff",
        ] {
            assert_eq!(find(path), Found::Nothing, "{path}");
        }
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(SITE.0.is_sorted_by(|one, next| one.path < next.path));
    }
}
