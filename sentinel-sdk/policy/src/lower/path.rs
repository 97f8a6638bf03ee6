//! Absolute paths as a policy names them.
//!
//! Invariant: a path has one spelling: absolute, without `.`, `..`, doubled or trailing slashes. Whether the file is
//! there is the agent's question.

use std::path::PathBuf;

use crate::problem::Complaint;
use sentinel_proto::is_visible;

use crate::quoted::{Quoted, shown};
use crate::shape::{Shape, Text};

/// The longest path that the kernel takes, its NUL not counted.
const MAX_PATH_BYTES: usize = 4095;
/// The longest path of a unix socket, its NUL not counted.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A path, as this one.
pub(crate) const fn path_shape(example: &'static str) -> Shape {
    Shape::Text(Text { what: "a path", example, most: Some(MAX_PATH_BYTES), pattern: Some("^/.") })
}

/// What the path is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    Cgroup,
    Executable,
    Folder,
    Roots,
    Socket,
}

impl PathKind {
    fn example(self) -> &'static str {
        match self {
            Self::Cgroup => "/batch/agents",
            Self::Executable => "/usr/bin/make",
            Self::Folder => "/home/app/.venv",
            Self::Roots => "/etc/agent-sentinel/dns-roots.pem",
            Self::Socket => "/run/postgresql/.s.PGSQL.5432",
        }
    }
}

pub(crate) fn absolute(text: &str, kind: PathKind) -> Result<PathBuf, Complaint> {
    let quoted = Quoted(text);
    let example = format!("write the absolute path, such as `{}`", kind.example());
    if text.is_empty() {
        return Err(Complaint::new("the path is empty", example));
    }
    if text.chars().any(|character| !is_visible(character)) {
        return Err(Complaint::new(format!("the path {quoted} holds an invisible character"), "remove it"));
    }
    if kind == PathKind::Socket && text.starts_with('@') {
        let message =
            format!("{quoted} names an abstract socket, and those can't be allowed in this version");
        return Err(Complaint::new(message, "write the path of a socket file"));
    }
    if text.starts_with(['~', '$']) {
        return Err(Complaint::new(format!("nothing replaces the beginning of {quoted}"), example));
    }
    if !text.starts_with('/') {
        return Err(Complaint::new(format!("the path {quoted} is not absolute"), example));
    }
    if text.contains('*') {
        let way_out = "name each one; a whole folder can't be allowed";
        return Err(Complaint::new(
            format!("{quoted} is a pattern, and patterns are not known here"),
            way_out,
        ));
    }
    let longest = if kind == PathKind::Socket { MAX_SOCKET_PATH_BYTES } else { MAX_PATH_BYTES };
    if text.len() > longest {
        let message = format!("the path {quoted} has {} bytes", text.len());
        return Err(Complaint::new(message, format!("the kernel takes at most {longest}")));
    }
    let normal = normalised(text);
    if normal == "/" {
        return Err(Complaint::new("`/` is the whole file system", example));
    }
    if normal != text {
        return Err(Complaint::new(
            format!("the path {quoted} is not in its shortest form"),
            format!("write `{}`, if that is what it means where symbolic links are involved", shown(&normal)),
        ));
    }
    Ok(PathBuf::from(text))
}

fn normalised(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_in_its_shortest_form_is_taken() {
        for path in ["/usr/bin/python3.11", "/usr/bin/[", "/a b/ü", "/..a/.b"] {
            assert_eq!(absolute(path, PathKind::Executable), Ok(PathBuf::from(path)), "{path}");
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for path in [
            "",
            "make",
            "./make",
            "~/make",
            "$HOME/make",
            "/",
            "//",
            "/usr//bin/make",
            "/usr/bin/",
            "/usr/./make",
            "/usr/../bin/make",
            "/usr/bin/*",
            "/a\nb",
            "/a\u{0}b",
            "/a\u{202e}b",
        ] {
            assert!(absolute(path, PathKind::Executable).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_longer_spelling_is_answered_with_the_shortest() {
        let complaint = absolute("/usr/lib/../bin//make/", PathKind::Executable).unwrap_err();
        assert!(complaint.way_out.contains("`/usr/bin/make`"), "{complaint:?}");
    }

    #[test]
    fn a_socket_is_no_abstract_one_and_fits_the_kernels_address() {
        assert!(absolute("@/tmp/.X11-unix/X0", PathKind::Socket).is_err());
        assert!(absolute(&format!("/{}", "s".repeat(107)), PathKind::Socket).is_err());
        assert!(absolute(&format!("/{}", "s".repeat(106)), PathKind::Socket).is_ok());
    }
}
