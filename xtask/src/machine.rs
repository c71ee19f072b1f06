//! Debian packages that the tests need from the machine.

use anyhow::{Result, bail};

use crate::run::{command, output, run, say};

/// A program, the arguments with which it shows that it works, and the package that brings it.
const NEEDED: [(&str, &[&str], &str); 7] = [
    ("git", &["--version"], "git"),
    ("node", &["--version"], "nodejs"),
    ("npm", &["--version"], "npm"),
    ("python3", &["--version"], "python3"),
    // Debian's python3 has the module, but it works only with this package.
    ("python3", &["-c", "import ensurepip, venv"], "python3-venv"),
    ("ps", &["--version"], "procps"),
    ("curl", &["--version"], "curl"),
];

/// Installs what is missing when that is possible, and says what to do when it is not.
pub(crate) fn provide() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let is_root = output(&mut command("id", &["-u"])).is_some_and(|id| id == "0");
    let has_apt = output(&mut command("apt-get", &["--version"])).is_some();
    if !is_root || !has_apt {
        bail!("these packages are missing, and only root can install them: apt-get install {list}");
    }
    say(&format!("installing the missing Debian packages: {list}"));
    let apt = |args: &[&str]| run(command("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive"));
    apt(&["--quiet", "--quiet", "update"])?;
    let mut install = vec!["--quiet", "--quiet", "--yes", "--no-install-recommends", "install"];
    install.extend(missing);
    apt(&install)
}

fn missing() -> Vec<&'static str> {
    let works = |program: &str, args: &[&str]| output(&mut command(program, args)).is_some();
    NEEDED.iter().filter(|(program, args, _)| !works(program, args)).map(|(_, _, package)| *package).collect()
}
