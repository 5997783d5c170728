//! `dunlin new`: a new project from a template, of those that are in this program or of a folder of the user's own.

mod source;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use dunlin_model::Name;
use serde::{Deserialize, Serialize};

use crate::commands::new::source::Source;
use crate::error::CommandError;
use crate::output::{Output, table};

/// What stands for the name of the project, in files and in their paths.
const NAME: &str = "{{name}}";
/// The file that says what a template is; it is not copied.
const ABOUT: &str = "template.toml";
/// What is cut off the names of files that would mean something else within the template.
const COVER: &str = ".in";
/// The folder of the SDK in a project.
const SDK_FOLDER: &str = "dunlin-guest";
/// The names that no project in Rust may have: Rust or cargo has a meaning of its own for them, or they are those of the SDK.
const NO_CRATES: [&str; 10] = [
    "alloc",
    "build",
    "core",
    "deps",
    SDK_FOLDER,
    "dunlin-guest-macros",
    "examples",
    "incremental",
    "std",
    "test",
];

/// Start a project from a template.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin new service hello && cd hello && dunlin up .")]
pub(crate) struct NewArgs {
    /// The template, or a folder with one of your own; without it the templates are listed.
    #[arg(value_name = "TEMPLATE")]
    template: Option<String>,
    /// The name of the project, and of the folder for it.
    #[arg(value_name = "NAME", requires = "template")]
    name: Option<PathBuf>,
}

/// What a template says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// What it makes, in one line.
    description: String,
    /// The language of its guest. To a project in Rust the SDK is added.
    language: String,
    /// `service`, `job`, ...
    kind: String,
}

/// A template in the list.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    #[serde(flatten)]
    about: About,
}

/// A project that was made.
#[derive(Debug, Serialize)]
struct Made {
    name: String,
    folder: PathBuf,
    files: usize,
}

/// The files of a project, each with its path in there.
type Files = BTreeMap<PathBuf, File>;

/// A file of a project.
#[derive(Clone, Debug)]
struct File {
    bytes: Vec<u8>,
    /// Whether it is a program.
    is_executable: bool,
}

/// Makes the project, or lists the templates.
pub(crate) fn run(args: NewArgs, output: &Output) -> Result<(), CommandError> {
    let Some(template) = args.template else { return list(output) };
    let source = Source::find(&template)?;
    let about = about(&source)?;
    let folder = args.name.ok_or_else(|| {
        CommandError::usage("a project needs a name").help(format!("name it: `dunlin new {template} hello`"))
    })?;
    let name = project_name(&folder, &about)?;
    if folder.exists() {
        return Err(CommandError::failed(format!("there is something at {} already", folder.display()))
            .help("choose another name, or another folder; nothing is written over"));
    }
    let mut files = filled_in(source.files()?, &name)?;
    if about.language == "rust" {
        // A template that was made of a whole project may hold one of another version.
        files.retain(|path, _| !path.starts_with(SDK_FOLDER));
        let sdk = Source::sdk().files()?;
        files.extend(sdk.into_iter().map(|(path, file)| (Path::new(SDK_FOLDER).join(path), file)));
    }
    let count = files.len();
    write(&folder, files).map_err(|error| {
        CommandError::failed(format!("cannot write the project to {}", folder.display()))
            .caused_by(&error)
            .help("choose a folder in which you may write; what was written can be removed")
    })?;
    let made = Made { name, folder, files: count };
    output.result(&made, || {
        let folder = made.folder.display();
        format!("{} is in {folder}; go on with `cd {folder}`, its README.md, and `dunlin up .`", made.name)
    })
}

fn list(output: &Output) -> Result<(), CommandError> {
    let mut all = Vec::new();
    for (name, source) in Source::built_in() {
        all.push(Listed { name, about: about(&source)? });
    }
    output.result(&all, || {
        let row = |it: &Listed| {
            let About { description, language, kind } = it.about.clone();
            vec![it.name.clone(), language, kind, description]
        };
        table(&["TEMPLATE", "LANGUAGE", "KIND", "WHAT IT MAKES"], all.iter().map(row).collect())
    })
}

fn about(source: &Source) -> Result<About, CommandError> {
    let failed = || CommandError::failed(format!("{source} is no template"));
    let help = format!("a template has a file {ABOUT} with `description`, `language` and `kind`");
    let files = source.files()?;
    let Some(text) = files.get(Path::new(ABOUT)) else {
        return Err(failed().because(format!("there is no {ABOUT} in it")).help(help));
    };
    toml::from_str(&String::from_utf8_lossy(&text.bytes))
        .map_err(|error| failed().caused_by(&error).help(help))
}

/// Returns the name of the project that is to be at `folder`: an app, and in Rust a crate, of that name must be possible.
fn project_name(folder: &Path, about: &About) -> Result<String, CommandError> {
    let refused = |why: String, help: &str| {
        let shown = folder.display();
        CommandError::usage(format!("a project cannot be called {shown}")).because(why).help(help)
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Err(error) = name.parse::<Name>() {
        return Err(refused(error.to_string(), "call it by a name like `hello` or `price-list`"));
    }
    let is_no_crate = name.starts_with(|first: char| first.is_ascii_digit()) || NO_CRATES.contains(&&*name);
    if about.language == "rust" && is_no_crate {
        return Err(refused(
            format!("no crate of Rust may be called `{name}`"),
            "choose a name that begins with a letter and has no meaning of its own, like `hello`",
        ));
    }
    Ok(name)
}

/// Returns the files of a template as they are in a project of this name.
fn filled_in(template: Files, name: &str) -> Result<Files, CommandError> {
    let mut files = Files::new();
    for (path, File { bytes, is_executable }) in template {
        if path == Path::new(ABOUT) {
            continue;
        }
        let path = path.to_string_lossy().replace(NAME, name);
        let path = PathBuf::from(path.strip_suffix(COVER).unwrap_or(&path));
        // What is no text has no name in it.
        let bytes = match String::from_utf8(bytes) {
            Ok(text) => text.replace(NAME, name).into_bytes(),
            Err(binary) => binary.into_bytes(),
        };
        if files.insert(path.clone(), File { bytes, is_executable }).is_some() {
            return Err(CommandError::failed(format!("the template has two files for {}", path.display()))
                .help(format!("take one of them away; `{COVER}` at the end of a name is cut off")));
        }
    }
    Ok(files)
}

fn write(folder: &Path, files: Files) -> io::Result<()> {
    for (path, File { bytes, is_executable }) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = if is_executable { 0o777 } else { 0o666 };
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use expect_test::expect;

    use super::*;
    use crate::args::Format;

    fn quiet() -> Output {
        Output::new(Format::Table, true)
    }

    fn made(template: &str, folder: &Path) -> Result<(), String> {
        let args = NewArgs { template: Some(template.to_owned()), name: Some(folder.to_owned()) };
        let shown = folder.parent().unwrap().display().to_string();
        run(args, &quiet()).map_err(|error| error.to_string().replace(&shown, "FOLDER"))
    }

    #[test]
    fn each_template_becomes_a_project_with_a_manifest_of_its_name() {
        let all = Source::built_in();
        assert!(all.len() >= 7, "{all:?}");
        for (template, _) in all {
            let folder = tempfile::tempdir().unwrap();
            let project = folder.path().join("price-list");
            made(&template, &project).unwrap();
            let manifest = fs::read_to_string(project.join("dunlin.toml")).unwrap();
            let manifest = dunlin_model::Manifest::parse(&manifest).unwrap();
            assert_eq!(manifest.app_name().app.as_str(), "price-list", "{template}");
            let is_rust = project.join("Cargo.toml").is_file();
            assert_eq!(project.join("dunlin-guest/Cargo.toml").is_file(), is_rust, "{template}");
            for file in ["README.md", ".gitignore"] {
                assert!(project.join(file).is_file(), "{template} has no {file}");
            }
            for (path, file) in Source::at(&project).files().unwrap() {
                let is_left = String::from_utf8_lossy(&file.bytes).contains(NAME);
                assert!(!is_left, "{template}: the name is not filled in in {}", path.display());
            }
        }
    }

    #[test]
    fn a_template_of_ones_own_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::create_dir_all(own.join("src")).unwrap();
        fs::write(own.join(ABOUT), "description = \"mine\"\nlanguage = \"zig\"\nkind = \"job\"\n").unwrap();
        fs::write(own.join("src/{{name}}.zig.in"), "// {{name}}\n").unwrap();
        fs::write(own.join("logo.bin"), b"\xff{{name}}").unwrap();
        fs::write(own.join("build.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(own.join("build.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        made(own.to_str().unwrap(), &folder.path().join("hello")).unwrap();
        let hello = folder.path().join("hello");
        assert_eq!(fs::read_to_string(hello.join("src/hello.zig")).unwrap(), "// hello\n");
        assert_eq!(fs::read(hello.join("logo.bin")).unwrap(), b"\xff{{name}}");
        let mode = |file: &str| fs::metadata(hello.join(file)).unwrap().permissions().mode() & 0o100;
        assert_eq!((mode("build.sh"), mode("logo.bin")), (0o100, 0));
        assert!(!hello.join(ABOUT).exists() && !hello.join(SDK_FOLDER).exists());
    }

    #[test]
    fn what_cannot_be_made_is_said_with_its_help() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("there")).unwrap();
        let mut lines = made("servce", &folder.path().join("hello")).unwrap_err();
        lines += &made("service", &folder.path().join("there")).unwrap_err();
        lines += &made("service", &folder.path().join("My App")).unwrap_err();
        lines += &made("service", &folder.path().join("3d")).unwrap_err();
        lines += &made("service", &folder.path().join("build")).unwrap_err();
        lines += &made(folder.path().to_str().unwrap(), &folder.path().join("hello"))
            .unwrap_err()
            .replace(folder.path().to_str().unwrap(), "FOLDER");
        lines += &run(NewArgs { template: Some("service".to_owned()), name: None }, &quiet())
            .unwrap_err()
            .to_string();
        expect![[r#"
            error: there is no template `servce`
              help: did you mean `service`? A folder of your own is named by its path
            error: there is something at FOLDER/there already
              help: choose another name, or another folder; nothing is written over
            error: a project cannot be called FOLDER/My App
              cause: `My App` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends
              help: call it by a name like `hello` or `price-list`
            error: a project cannot be called FOLDER/3d
              cause: no crate of Rust may be called `3d`
              help: choose a name that begins with a letter and has no meaning of its own, like `hello`
            error: a project cannot be called FOLDER/build
              cause: no crate of Rust may be called `build`
              help: choose a name that begins with a letter and has no meaning of its own, like `hello`
            error: FOLDER is no template
              cause: there is no template.toml in it
              help: a template has a file template.toml with `description`, `language` and `kind`
            error: a project needs a name
              help: name it: `dunlin new service hello`
        "#]]
        .assert_eq(&lines);
    }
}
