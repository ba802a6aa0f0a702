use super::*;

const MANIFESTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: bos-operator}
rules:
- {apiGroups: [bos.hpe.com], resources: [sessions, sessions/status], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bos-operator}
roleRef: {kind: ClusterRole, name: bos-operator}
subjects: [{kind: ServiceAccount, name: bos-operator}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: bos-operator}
rules:
- {apiGroups: [""], resources: [secrets], resourceNames: [one], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: bos-operator}
roleRef: {kind: Role, name: bos-operator}
subjects: [{kind: ServiceAccount, name: bos-operator}]"#;

fn asked(verb: &str, resource: &str, namespace: &str, name: &str) -> Asked {
    let group = if resource == "secrets" { "" } else { "bos.hpe.com" };
    Asked {
        account: "bos-operator".into(),
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
        allowed: true,
        reason: r#"RBAC: allowed by ClusterRoleBinding "bos-operator" of ClusterRole "bos-operator" to ServiceAccount "bos-operator/bos""#
            .into(),
        done: true,
    }
}

/// All that the manifests above grant.
fn whole() -> Vec<Asked> {
    vec![asked("list", "sessions", "", ""), asked("list", "sessions/status", "blue", ""), asked("get", "secrets", "bos", "one")]
}

fn judge(planes: &[Vec<Asked>]) -> Vec<String> {
    compare(&granted(MANIFESTS).unwrap(), planes, &[])
}

/// What is wrong when this is asked too.
fn also(more: Asked) -> Vec<String> {
    judge(&[whole(), vec![more]])
}

#[test]
fn what_is_used_and_granted_is_right() {
    let rights: Vec<String> = granted(MANIFESTS).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        rights,
        [
            "bos-operator: list bos.hpe.com sessions",
            "bos-operator: list bos.hpe.com sessions/status",
            "bos-operator: get core secrets one, in the operator's namespace"
        ]
    );
    assert_eq!(judge(&[whole()]), Vec::<String>::new());
    // One of these on each of two control planes.
    let (one, other) = (whole()[..1].to_vec(), whole()[1..].to_vec());
    assert_eq!(judge(&[one, other]), Vec::<String>::new());
}

#[test]
fn a_right_that_nobody_uses_is_named() {
    for (number, unused) in
        ["list bos.hpe.com sessions", "list bos.hpe.com sessions/status", "get core secrets one, in the operator's namespace"]
            .into_iter()
            .enumerate()
    {
        let mut rest = whole();
        // Not answered with success is not used.
        rest[number].done = false;
        assert_eq!(judge(&[rest.clone()]), [format!("unused: bos-operator: {unused}")]);
        rest.remove(number);
        assert_eq!(judge(&[rest]), [format!("unused: bos-operator: {unused}")]);
    }
}

#[test]
fn an_excuse_holds_while_nobody_uses_it() {
    let rights = granted(MANIFESTS).unwrap();
    let excused = [("bos-operator: list bos.hpe.com sessions", "why")];
    assert_eq!(compare(&rights, &[whole()[1..].to_vec()], &excused), Vec::<String>::new());
    assert_eq!(compare(&rights, &[whole()], &excused), ["used, so it needs no excuse: bos-operator: list bos.hpe.com sessions"]);
}

#[test]
fn what_no_rule_grants_is_missing() {
    for more in [
        asked("watch", "sessions", "", ""),
        asked("list", "bootoptions", "", ""),
        asked("get", "secrets", "bos", "other"),
        asked("get", "secrets", "blue", "one"),
    ] {
        assert!(also(more.clone())[0].starts_with(&format!("missing: bos-operator: {} ", more.verb)), "{more:?}");
    }
    // Of an account that these manifests do not bring, others say.
    assert_eq!(also(Asked { account: "bos-webhook".into(), ..asked("watch", "sessions", "", "") }), Vec::<String>::new());
}

#[test]
fn a_refusal_is_wrong_unless_the_role_came_late() {
    let refused = Asked { allowed: false, reason: String::new(), done: false, ..asked("list", "sessions", "", "") };
    assert_eq!(also(refused.clone()), ["missing, and was refused: bos-operator: list bos.hpe.com sessions, such as \"\""]);
    let mut plane = whole();
    plane.push(refused);
    assert_eq!(judge(&[plane]), Vec::<String>::new());
}

#[test]
fn rights_from_elsewhere_are_seen() {
    let by = |role: &str| Asked {
        reason: format!("RBAC: allowed by ClusterRoleBinding \"x\" of ClusterRole \"{role}\""),
        ..asked("list", "sessions", "", "x")
    };
    assert!(also(by("cluster-admin"))[0].starts_with("the tests give more than our roles: bos-operator: list"));
    // What everybody may is not ours.
    let everybody = Asked { resource: "/apis".into(), ..by("system:discovery") };
    assert_eq!(also(everybody), Vec::<String>::new());
}

#[test]
fn wildcards_and_what_is_granted_twice_are_refused() {
    assert!(granted(&MANIFESTS.replace("verbs: [get]", "verbs: ['*']")).is_err());
    assert!(granted(&MANIFESTS.replace("{kind: Role, name: bos-operator}", "{kind: ClusterRole, name: cluster-admin}")).is_err());
    let twice = granted(&MANIFESTS.replace("verbs: [get]", "verbs: [get, get]")).unwrap();
    assert_eq!(compare(&twice, &[whole()], &[]), ["granted twice: bos-operator: get core secrets one, in the operator's namespace"]);
}

#[test]
fn each_rule_says_what_it_is_for() {
    let said = "rules:\n# Why.\n- apiGroups: [a]\n  verbs: [get]\n";
    assert_eq!(without_comment(said), Vec::<usize>::new());
    assert_eq!(without_comment(&format!("{said}- apiGroups: [b]\n")), [5]);
}
