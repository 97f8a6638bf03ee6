//! Other people's resolvers, unmodified: two C libraries, Python, Node with both of its own, Go's, curl, pip and OpenAI's client find listed hosts and
//! no others.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sentinel_tests::dns::DnsServer;
use sentinel_tests::{Host, Server, wait_until};
use serde_json::json;

/// An agent that asks this server, with one policy.
fn host(dns: &DnsServer, policy: &str) -> Host {
    let configuration = format!("resolver: {{upstreams: [\"{}\"], timeout_seconds: 1}}\n", dns.address());
    Host::builder().policy("test", policy).configuration(configuration).start()
}

const LISTED: &str = "enforcement: {network: {allow: [\"api.example.com:443\"]}}\n";

fn dns() -> DnsServer {
    DnsServer::start(&json!({
        "api.example.com": {"a": ["198.51.100.9"], "aaaa": ["2001:db8::9"]},
        "other.example.com": {"a": ["198.51.100.8"]},
    }))
}

/// `programs/resolve.c`, by this compiler, in a folder that any user may enter.
fn compiled(compiler: &str) -> PathBuf {
    let program = std::env::temp_dir().join(format!("sentinel-resolve-{}-{compiler}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/resolve.c");
    let built = Command::new(compiler).arg("-o").arg(&program).arg(source).status();
    assert!(
        built.as_ref().is_ok_and(std::process::ExitStatus::success),
        "`cargo xtask setup` installs `{compiler}`: {built:?}"
    );
    program
}

#[test]
fn two_c_libraries_find_what_is_listed() {
    let dns = dns();
    let host = host(&dns, LISTED);
    for compiler in ["cc", "musl-gcc"] {
        let program = compiled(compiler);
        let path = program.display().to_string();
        let finished = host.run(&[&path, "api.example.com", "other.example.com"]);
        std::fs::remove_file(program).unwrap();
        let lines = finished.lines();
        let mut found: Vec<&str> = lines[0].split(' ').collect();
        found.sort_unstable();
        assert_eq!(found, ["198.51.100.9", "2001:db8::9", "api.example.com"], "{compiler}: {finished:?}");
        assert_eq!(lines[1], "other.example.com fails", "{compiler}");
    }
    assert!(
        dns.questions().iter().all(|question| question.ends_with("api.example.com")),
        "{:?}",
        dns.questions()
    );
}

#[test]
fn node_finds_what_is_listed_by_the_c_library_and_by_its_own_resolver() {
    let dns = dns();
    let host = host(&dns, LISTED);
    let script = "
const dns = require('dns').promises;
(async () => {
    for (const name of ['api.example.com', 'other.example.com']) {
        const failed = () => 'fails';
        const found = await dns.lookup(name, {family: 4}).then((found) => found.address, failed);
        console.log(name, found, await dns.resolve4(name).then(String, failed), await dns.resolve6(name).then(String, failed));
    }
})();
";
    let node = which("node");
    let finished = host.run(&[&node, "-e", script]);
    assert_eq!(
        finished.lines(),
        ["api.example.com 198.51.100.9 198.51.100.9 2001:db8::9", "other.example.com fails fails fails"],
        "{finished:?}"
    );
}

/// Where a program is.
fn which(program: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    let found = found.unwrap_or_else(|| panic!("`cargo xtask setup` installs `{program}`"));
    std::fs::canonicalize(found).unwrap().display().to_string()
}

#[test]
fn curl_reaches_a_listed_host_inside_an_action_and_not_outside() {
    let dns = DnsServer::start(&json!({"api.example.com": {"a": ["127.0.0.1"]}}));
    let server = Server::start();
    let port = server.address().port();
    let url = format!("http://api.example.com:{port}/");
    let policy = format!(
        "actions: {{fetch: {{grants: {{network: [{{host: \"api.example.com:{port}\", allow_private: true}}]}}}}}}\n\
         enforcement: {{exec: {{allow: [/usr/bin/curl, /usr/bin/python3]}}}}\n"
    );
    let host = host(&dns, &policy);
    let curl = format!(
        "python=import subprocess; print(subprocess.run(['/usr/bin/curl', '-sS', '-m', '5', '-o', '/dev/null', '{url}']).returncode)"
    );
    let probe = host.probe(&[&curl, "begin=fetch", &curl, "end", &curl]);
    let codes: Vec<&str> = probe.lines().into_iter().filter(|line| line.parse::<u8>().is_ok()).collect();
    // 6: curl could not resolve the host.
    assert_eq!(codes, ["6", "0", "6"], "{probe:?}");
    assert_eq!(server.accepted(), 1);
}

#[test]
fn go_reaches_a_listed_host_by_its_own_resolver_inside_an_action_and_not_outside() {
    let folder = std::env::temp_dir().join(format!("sentinel-go-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("page.json"), "{\"is\": \"reached\"}").unwrap();
    let files = Files::serve(&folder);
    let dns = DnsServer::start(&json!({"api.example.com": {"a": ["127.0.0.1"]}}));
    let program = which("gron");
    let policy = format!(
        "actions: {{fetch: {{grants: {{network: [{{host: \"api.example.com:{}\", allow_private: true}}]}}}}}}\n\
         enforcement: {{exec: {{allow: [{program}, /usr/bin/python3]}}}}\n",
        files.1
    );
    let host = host(&dns, &policy);
    // What it says of its resolver is part of what is looked for.
    let fetch = format!(
        "python=import subprocess; ran = subprocess.run(['{program}', 'http://api.example.com:{}/page.json'], env={{'GODEBUG': 'netdns=go+1'}}, capture_output=True, text=True)
print('reached' if 'json.is = \"reached\";' in ran.stdout else 'failed', 'by itself' if 'netGo = true' in ran.stderr or \"Go's resolver\" in ran.stderr else 'by another')",
        files.1
    );
    let probe = host.probe(&[&fetch, "begin=fetch", &fetch, "end", &fetch]);
    std::fs::remove_dir_all(folder).unwrap();
    let outcomes: Vec<&str> = probe.lines().into_iter().filter(|line| line.contains(" by ")).collect();
    assert_eq!(outcomes, ["failed by itself", "reached by itself", "failed by itself"], "{probe:?}");
}

/// Answers like the service would, each question alike.
const COMPLETIONS: &str = r#"
import http.server, json, sys
class Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['Content-Length']))
        message = {'role': 'assistant', 'content': 'the service was reached'}
        choice = {'index': 0, 'finish_reason': 'stop', 'message': message}
        answer = json.dumps({'id': '1', 'object': 'chat.completion', 'created': 1, 'model': 'm', 'choices': [choice]}).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Service).serve_forever()
"#;

#[test]
fn openais_client_reaches_a_listed_service_inside_an_action_and_not_outside() {
    let service = Files::start(|port| vec!["-c".to_owned(), COMPLETIONS.to_owned(), port]);
    let dns = DnsServer::start(&json!({"api.example.com": {"a": ["127.0.0.1"]}}));
    let policy = format!(
        "actions: {{ask: {{grants: {{network: [{{host: \"api.example.com:{}\", allow_private: true}}]}}}}}}\n\
         enforcement: {{exec: {{allow: [/usr/bin/python3]}}}}\n",
        service.1
    );
    let host = host(&dns, &policy);
    let packages = openai_packages(&host.folder);
    let ask = format!(
        "python=import sys; sys.path.insert(0, '{packages}'); sys.dont_write_bytecode = True
import openai
client = openai.OpenAI(base_url='http://api.example.com:{}/v1', api_key='none', max_retries=0, timeout=10)
try:
    print(client.chat.completions.create(model='m', messages=[{{'role': 'user', 'content': 'hello'}}]).choices[0].message.content)
except openai.APIConnectionError as error:
    print('the service was not reached:', type(error.__cause__).__name__)",
        service.1
    );
    let probe = host.probe(&[&ask, "begin=ask", &ask, "end", &ask]);
    let outcomes: Vec<&str> =
        probe.lines().into_iter().filter(|line| line.starts_with("the service")).collect();
    let refused = "the service was not reached: ConnectError";
    assert_eq!(outcomes, [refused, "the service was reached", refused], "{probe:?}");
}

/// OpenAI's client with what it needs, where a session's user can read it.
fn openai_packages(folder: &Path) -> String {
    let installed = std::env::var_os("SENTINEL_OPENAI_PACKAGES");
    let installed =
        installed.expect("`cargo xtask test` installs it; run that instead of `cargo test` alone");
    let copy = folder.join("openai-packages");
    sentinel_tests::copy_folder(Path::new(&installed), &copy);
    copy.display().to_string()
}

/// A server written in Python, its own file server mostly, outside every session.
struct Files(Child, u16);

impl Files {
    fn serve(folder: &Path) -> Self {
        let folder = folder.display().to_string();
        Self::start(|port| {
            ["-m", "http.server", "--bind", "127.0.0.1", &port, "--directory", &folder]
                .map(str::to_owned)
                .to_vec()
        })
    }

    /// One that Python runs with these arguments, which name its port.
    fn start(arguments: impl FnOnce(String) -> Vec<String>) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("/usr/bin/python3")
            .args(arguments(port.to_string()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the server answers", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self(child, port)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn pip_downloads_from_a_listed_host_and_not_from_another() {
    let folder = std::env::temp_dir().join(format!("sentinel-pip-{}", std::process::id()));
    let index = folder.join("simple/demo");
    std::fs::create_dir_all(&index).unwrap();
    let make = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + '/demo-1-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('demo.py', '')
    wheel.writestr('demo-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: demo\\nVersion: 1\\n')
    wheel.writestr('demo-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr('demo-1.dist-info/RECORD', '')
";
    let index_text = index.display().to_string();
    assert!(Command::new("/usr/bin/python3").args(["-c", make, &index_text]).status().unwrap().success());
    std::fs::write(
        index.join("index.html"),
        "<a href=\"demo-1-py3-none-any.whl\">demo-1-py3-none-any.whl</a>",
    )
    .unwrap();
    let files = Files::serve(&folder);
    let dns = DnsServer::start(
        &json!({"pypi.example.com": {"a": ["127.0.0.1"]}, "evil.example.com": {"a": ["127.0.0.1"]}}),
    );
    // What pip calls to describe the system; a script where there is one, which tier `lsm` judges too.
    let mut called = vec!["/usr/bin/dash", "/usr/bin/uname"];
    called.extend(Some("/usr/bin/lsb_release").filter(|path| Path::new(path).exists()));
    let policy = format!(
        "enforcement:\n  network: {{allow: [{{host: \"pypi.example.com:{}\", allow_private: true}}]}}\n  exec: {{allow: [{}]}}\n",
        files.1,
        called.join(", ")
    );
    let host = host(&dns, &policy);
    let download = |from: &str| {
        let script = "
import os, runpy, sys, tempfile
os.chdir(tempfile.mkdtemp())
sys.argv = ['pip', 'download', '--no-deps', '--no-cache-dir', '--retries', '0', '--timeout', '5', '--disable-pip-version-check',
            '--index-url', sys.argv[1], '--trusted-host', sys.argv[2], 'demo']
try:
    runpy.run_module('pip', run_name='__main__')
except SystemExit as ended:
    print('ended', ended.code, sorted(os.listdir('.')))
";
        let url = format!("http://{from}:{}/simple", files.1);
        let mut run = host.run_command(&[], &["/usr/bin/python3", "-c", script, &url, from]);
        run.env("HOME", "/nonexistent").env("PIP_CONFIG_FILE", "/dev/null");
        for variable in [
            "PIP_INDEX_URL",
            "PIP_EXTRA_INDEX_URL",
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "all_proxy",
        ] {
            run.env_remove(variable);
        }
        let finished = sentinel_tests::Finished::of(run);
        let last = finished.lines().last().copied().unwrap_or_default().to_owned();
        (last, finished.stderr)
    };
    let (listed, told) = download("pypi.example.com");
    assert_eq!(listed, "ended 0 ['demo-1-py3-none-any.whl']", "{told}");
    let (unlisted, told) = download("evil.example.com");
    assert_eq!(unlisted, "ended 1 []", "{told}");
    std::fs::remove_dir_all(folder).unwrap();
}
