//! Checks that the image's Dockerfile can build from this repository and that the binary can run.
//!
//! The Dockerfile is never executed. The tests compare what it would need: the files it is sent,
//! what Cargo makes of them, the packages a build needs, the libraries the binary is linked with.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tidewire_app::config::settings::{SETTINGS, Settings};
use tidewire_tests::machine::host_triple;
use tidewire_tests::server;

use crate::deploy::compose::{file, grammar, root};
use crate::deploy::dockerfile::{BuildStage, DockerIgnore, is_within, stages, tracked};

/// Installed for their files; the binary is not linked with them.
const NOT_LINKED: &[&str] = &["ca-certificates"];
/// Packages that every Debian has that can run a program.
const C_LIBRARIES: &[&str] = &["libc6", "libgcc-s1"];
/// What is needed before scripts/install.sh can run.
const CALLER: &str = "make";

/// The stage that builds and the one that runs.
fn pair() -> (BuildStage, BuildStage) {
    let [build, run]: [BuildStage; 2] = stages().try_into().expect("one stage builds, one runs");
    (build, run)
}

/// The tracked files that the build is sent and copies.
fn context() -> Vec<String> {
    let ignore = DockerIgnore::read();
    let (build, run) = pair();
    let copies: Vec<String> = [build, run]
        .iter()
        .flat_map(BuildStage::copies)
        .filter(|copied| copied.from.is_none())
        .flat_map(|copied| copied.sources)
        .collect();
    let sent = tracked().into_iter().filter(|path| !ignore.excludes(path));
    sent.filter(|path| copies.iter().any(|source| is_within(path, source))).collect()
}

#[test]
fn copied_files_exist_and_are_the_whole_build_context() {
    let ignore = DockerIgnore::read();
    let (build, run) = pair();
    let mut copied = Vec::new();
    for one in build.copies().into_iter().chain(run.copies()) {
        if one.from.is_some() {
            assert_eq!(one.from, build.name, "{one:?}");
            let made = build.commands().iter().any(|words| words.contains(&one.sources[0]));
            assert!(made, "{} is built in {:?}", one.sources[0], build.name);
            continue;
        }
        for source in one.sources {
            assert!(root().join(&source).exists(), "there is no {source}");
            assert!(!ignore.excludes(&source), ".dockerignore excludes {source}");
            copied.push(source);
        }
    }
    let needless = tracked().into_iter().find(|path| {
        !ignore.excludes(path) && !copied.iter().any(|source| is_within(path, source))
    });
    assert_eq!(needless, None, "it is sent but not copied");
    assert!(ignore.excludes(".git/config") && ignore.excludes("target/release/tidewire"));
    assert!(ignore.excludes("rust-toolchain.toml"), "the image's tag pins Rust");
}

/// Cargo reads the workspace from a folder with exactly the files of the image's build.
#[test]
fn cargo_finds_all_it_needs_in_the_copied_files() {
    let folder = tempfile::tempdir().unwrap();
    let context = context();
    for path in &context {
        let target = folder.path().join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(root().join(path), target).unwrap();
    }
    let metadata = metadata(folder.path());
    let packages = metadata["packages"].as_array().unwrap();
    let (build, run) = pair();
    let commands = build.commands();
    let cargo = commands.iter().find(|words| words[0] == "cargo").expect("cargo builds it");
    let behind = |flag: &str| {
        let at = cargo.iter().position(|word| word == flag);
        cargo[at.unwrap_or_else(|| panic!("{cargo:?}: no {flag}")) + 1].as_str()
    };
    for flag in ["build", "--release", "--locked"] {
        assert!(cargo.iter().any(|word| word == flag), "{cargo:?}: {flag}");
    }
    let package = packages.iter().find(|package| package["name"] == behind("-p")).unwrap();
    let targets = package["targets"].as_array().unwrap();
    let binary = targets.iter().find(|target| target["kind"][0] == "bin").unwrap();
    assert_eq!(binary["name"], behind("--bin"));
    let built = format!("target/release/{}", behind("--bin"));
    let binary_out =
        &run.copies().into_iter().find(|copied| copied.from.is_some()).unwrap().sources[0];
    let taken_out = |words: &&Vec<String>| words.contains(&built) && words.contains(binary_out);
    assert!(commands.iter().any(|words| taken_out(&words)), "{built} becomes {binary_out}");
    check_included(folder.path(), &context);
}

fn metadata(folder: &Path) -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    command.arg("--filter-platform").arg(host_triple());
    let asked = command.current_dir(folder).output().expect("cargo runs");
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    serde_json::from_slice(&asked.stdout).expect("cargo speaks JSON")
}

/// Files that are compiled in by path are where the sources expect them.
fn check_included(folder: &Path, context: &[String]) {
    let marks = [concat!("include_", "str!(\""), concat!("include_", "bytes!(\"")];
    let mut count = 0;
    let built = |path: &&String| path.ends_with(".rs") && !path.starts_with("tests/");
    for path in context.iter().filter(built) {
        let text = file(path);
        for rest in marks.iter().flat_map(|mark| text.split(mark).skip(1)) {
            let included = rest.split('"').next().unwrap();
            let place = folder.join(path);
            assert!(place.parent().unwrap().join(included).is_file(), "{path} includes {included}");
            count += 1;
        }
    }
    assert!(count > 0, "the catalogue and the page are compiled in");
}

#[test]
fn it_builds_with_the_packages_of_the_install_script_and_a_recent_rust() {
    let (build, run) = pair();
    let script = file("scripts/install.sh");
    // Lines inside `if [ "$purpose" = test ]` are indented.
    let always = script.lines().filter_map(|line| line.strip_prefix("need "));
    let mut needed: Vec<&str> = always.filter_map(|rest| rest.split(' ').next()).collect();
    needed.push(CALLER);
    needed.sort_unstable();
    assert_eq!(build.packages(), needed);
    let (name, tag) = build.base.split_once(':').expect("a tag");
    let (version, flavour) = tag.split_once('-').expect("a Rust and a Debian");
    assert_eq!(name, "rust");
    assert!(numbers(version) >= numbers(env!("CARGO_PKG_RUST_VERSION")), "{version} is too old");
    let suite = flavour.strip_prefix("slim-").expect("the small one");
    assert_eq!(run.base, format!("debian:{suite}-slim"), "built and run on the same libraries");
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().expect("a number")).collect()
}

#[test]
fn it_runs_as_an_unprivileged_user_that_owns_the_data() {
    let (_, run) = pair();
    let commands = run.commands();
    let made = |program: &str| {
        let found = commands.iter().find(|words| words[0] == program);
        found.unwrap_or_else(|| panic!("{program} is not run")).join(" ")
    };
    let user = run.only("USER");
    assert!(user.parse::<u32>().is_ok_and(|id| id >= 1_000), "USER {user}");
    assert!(made("useradd").contains(&format!("--uid {user} ")), "{}", made("useradd"));
    let name = commands.iter().find(|words| words[0] == "useradd").unwrap().last().unwrap().clone();
    let variables = run.variables();
    let data = variables.iter().find(|(name, _)| name == "TIDEWIRE_DATA_DIR");
    let data = &data.expect("the data folder is a volume").1;
    let folder = made("install");
    assert!(folder.contains(&format!("-d -o {name} -g {name} ")), "{folder}");
    assert!(folder.ends_with(data.as_str()), "{folder}");
    assert_eq!(run.only("WORKDIR"), data);
    let mut settings = Settings::defaults();
    settings.add_variables(variables.into_iter());
    assert_eq!(settings.problems(), &[] as &[String]);
}

#[test]
fn its_entry_point_is_the_binary_and_its_port_the_default() {
    let (_, run) = pair();
    let entry: Vec<String> = serde_json::from_str(run.only("ENTRYPOINT")).expect("the list form");
    assert_eq!(entry, ["tidewire"], "the verb follows");
    let installed = run.copies().iter().any(|copied| copied.target == "/usr/local/bin/tidewire");
    assert!(installed, "it is in PATH");
    assert!(run.all("CMD").is_empty(), "no verb is the default");
    assert!(grammar(&["gateway".into()]).is_ok());
    let listen = SETTINGS.iter().find(|setting| setting.key == "listen").unwrap().default;
    let port = listen.rsplit(':').next().unwrap();
    assert_eq!(run.only("EXPOSE"), port);
}

/// The packages of the shared libraries that this binary is linked with.
#[test]
fn it_has_exactly_the_libraries_that_the_binary_is_linked_with() {
    let binary = server::command().get_program().to_owned();
    let listed = Command::new("ldd").arg(binary).output().expect("ldd is there");
    let listed = String::from_utf8(listed.stdout).unwrap();
    // Lines without an arrow are the kernel's and the loader's, which belongs to the C library.
    let paths = listed.lines().filter_map(|line| line.split(" => ").nth(1)?.split(' ').next());
    let mut linked: BTreeSet<String> = paths.map(package).collect();
    assert!(linked.len() > C_LIBRARIES.len(), "{listed}");
    for known in C_LIBRARIES {
        linked.remove(*known);
    }
    let mut installed: BTreeSet<String> = pair().1.packages().into_iter().collect();
    for other in NOT_LINKED {
        assert!(installed.remove(*other), "{other} is installed");
    }
    assert_eq!(installed, linked, "{listed}");
}

/// The Debian package of a library. Debian 13 has renamed some of them.
fn package(path: &str) -> String {
    let real = fs::canonicalize(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let moved = Path::new("/usr").join(path.trim_start_matches('/'));
    let unmoved = Path::new("/").join(real.strip_prefix("/usr").unwrap_or(&real));
    for place in [&real, &moved, &unmoved] {
        let asked = Command::new("dpkg").arg("-S").arg(place).output().expect("this is a Debian");
        if asked.status.success() {
            let answer = String::from_utf8(asked.stdout).unwrap();
            let name = answer.split(':').next().unwrap();
            return name.strip_suffix("t64").unwrap_or(name).to_owned();
        }
    }
    panic!("no package has {path}")
}
