//! The program from outside: its help, and what it says about wrong settings.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::process::{Command, Output};

fn operator(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bos-operator"));
    // No cluster is reached from here, whatever the machine has.
    command.env_clear().env("KUBECONFIG", "/nonexistent").args(arguments);
    command.envs(variables.iter().copied()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_tells_sources_and_exit_codes() {
    let output = operator(&["--help"], &[]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in ["--hsm-base-url", "S3_GATEWAY", "BOS_REPORT_LISTEN", "PRECEDENCE", "EXIT CODES", "--s3-secret-key-file"] {
        assert!(help.contains(part), "{part} is not in the help:\n{help}");
    }
}

#[test]
fn wrong_settings_end_with_2_and_name_the_key() {
    let keys = [("S3_ACCESS_KEY", "a"), ("S3_SECRET_KEY", "s")];
    let missing = operator(&[], &[]);
    assert!(missing.status.code() == Some(2) && stderr(&missing).contains("S3_ACCESS_KEY"), "{}", stderr(&missing));
    let wrong = operator(&["--hsm-base-url=cray-smd"], &keys);
    assert!(wrong.status.code() == Some(2) && stderr(&wrong).contains("hsm.baseUrl"), "{}", stderr(&wrong));
    let filter = operator(&["--log=bos=loud"], &keys);
    assert!(filter.status.code() == Some(2) && stderr(&filter).contains("bos=loud"), "{}", stderr(&filter));

    let open = operator(&["--report-listen=127.0.0.1:0"], &keys);
    assert!(open.status.code() == Some(2) && stderr(&open).contains("reportAuthentication"), "{}", stderr(&open));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "healthListn: 127.0.0.1:0\n").unwrap();
    let unknown = operator(&["--config", file.path().to_str().unwrap()], &keys);
    assert!(unknown.status.code() == Some(2) && stderr(&unknown).contains("healthListn"), "{}", stderr(&unknown));
}

#[test]
fn an_empty_variable_is_not_set_and_no_cluster_is_a_failure() {
    let variables =
        [("S3_ACCESS_KEY", "a"), ("S3_SECRET_KEY", "very-secret"), ("BOS_LEASE_PERIOD_SECONDS", ""), ("BOS_LOG_FORMAT", "json")];
    let output = operator(&["--health-listen=127.0.0.1:0"], &variables);
    let logs = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{logs}");
    assert!(logs.contains("no way to the cluster") && !logs.contains("very-secret"), "{logs}");
    let first: serde_json::Value = serde_json::from_str(logs.lines().next().unwrap()).unwrap();
    assert_eq!(first["message"], "starting");
}
