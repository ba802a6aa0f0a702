// Package gitops tests what manifests/gitops says of the health of our objects, with the libraries of the tools themselves: the Lua
// interpreter of Argo CD, the CEL library of Flux, and kstatus. The objects are those that the operator's own code writes (testdata).
package gitops

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

const manifests = "../../manifests/gitops/"

// Objects as they are shown in each state, by the name of the state. Tests of the Rust crates write these files and fail where they
// differ: BOS_GOLDEN=write writes them anew.
func objects(t *testing.T) map[string]*unstructured.Unstructured {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no objects in testdata: %v", err)
	}
	found := map[string]*unstructured.Unstructured{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var states map[string]json.RawMessage
		if err := json.Unmarshal(text, &states); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for name, object := range states {
			// This decoder keeps whole numbers whole, as those of the tools do.
			decoded := &unstructured.Unstructured{}
			if err := decoded.UnmarshalJSON(object); err != nil {
				t.Fatalf("%s: %s: %v", file, name, err)
			}
			if found[name] != nil {
				t.Fatalf("%s: there are two objects %q", file, name)
			}
			found[name] = decoded
		}
	}
	return found
}

// What each tool says of each state: Argo CD, kstatus (kubectl, Flux without expressions, others) and Flux. A "-" stands for a kind of
// which the tool is not told.
var expected = map[string][3]string{
	// Nobody has looked at it: never done, never failed.
	"fresh Session":         {"Progressing", "InProgress", "InProgress"},
	"fresh SessionTemplate": {"Progressing", "InProgress", "InProgress"},
	"fresh BootOptions":     {"Progressing", "InProgress", "InProgress"},
	"fresh BootComponent":   {"Progressing", "InProgress", "-"},

	"Session pending":             {"Progressing", "InProgress", "InProgress"},
	"Session running":             {"Progressing", "InProgress", "InProgress"},
	"Session in an outage":        {"Progressing", "InProgress", "InProgress"},
	"Session of silent nodes":     {"Progressing", "InProgress", "InProgress"},
	"Session suspended":           {"Suspended", "InProgress", "InProgress"},
	"Session changed since":       {"Progressing", "InProgress", "InProgress"},
	"Session succeeded":           {"Healthy", "Current", "Current"},
	"Session failed":              {"Degraded", "Failed", "Failed"},
	"Session partially failed":    {"Degraded", "Failed", "Failed"},
	"Session cancelled":           {"Degraded", "Failed", "Failed"},
	"Session superseded":          {"Degraded", "Failed", "Failed"},
	"Session that ran before":     {"Degraded", "Failed", "Failed"},
	"Session after its time":      {"Degraded", "Failed", "Failed"},
	"Session without startBefore": {"Degraded", "Failed", "Failed"},

	"SessionTemplate ready":           {"Healthy", "Current", "Current"},
	"SessionTemplate with warnings":   {"Healthy", "Current", "Current"},
	"SessionTemplate invalid":         {"Degraded", "InProgress", "Failed"},
	"SessionTemplate without image":   {"Degraded", "InProgress", "Failed"},
	"SessionTemplate not checked yet": {"Progressing", "InProgress", "InProgress"},

	"BootOptions in force": {"Healthy", "Current", "Current"},
	"BootOptions in doubt": {"Degraded", "InProgress", "Failed"},

	"BootComponent driven":    {"Progressing", "Current", "-"},
	"BootComponent stable":    {"Healthy", "Current", "-"},
	"BootComponent failed":    {"Degraded", "Current", "-"},
	"BootComponent suspended": {"Suspended", "Current", "-"},
}

func TestEveryStateHasTheHealthItShouldHave(t *testing.T) {
	states, checks, exprs := objects(t), luaChecks(t), fluxChecks(t)
	var names []string
	for name := range states {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		object := states[name]
		want, ok := expected[name]
		if !ok {
			t.Errorf("%s: nobody says what is expected", name)
			continue
		}
		got := [3]string{"-", "-", "-"}
		if script, ok := checks[object.GetKind()]; ok {
			health, message, err := argoHealth(script, object)
			if err != nil {
				t.Errorf("%s: Argo CD: %v", name, err)
			}
			got[0] = health
			if health != "Healthy" && message == "" {
				t.Errorf("%s: Argo CD shows no reason", name)
			}
		}
		computed, err := status.Compute(object)
		if err != nil {
			t.Fatalf("%s: kstatus: %v", name, err)
		}
		got[1] = string(computed.Status)
		if check, ok := exprs[object.GetKind()]; ok {
			got[2], err = check.evaluate(object)
			if err != nil {
				t.Errorf("%s: Flux: %v", name, err)
			}
		}
		if got != want {
			t.Errorf("%s: Argo CD, kstatus and Flux say %v, not %v", name, got, want)
		}
	}
	for name := range expected {
		if states[name] == nil {
			t.Errorf("%s: there is no such object", name)
		}
	}
}

func TestWhatArgoShowsIsWhatTheObjectSays(t *testing.T) {
	states, checks := objects(t), luaChecks(t)
	for name, words := range map[string]string{
		"fresh Session":                 "not looked at it yet",
		"Session pending":               "Waiting",
		"Session after its time":        "NotStarted: startBefore",
		"Session partially failed":      "PartiallyFailed: ",
		"SessionTemplate without image": "does not exist in S3",
	} {
		object := states[name]
		if object == nil {
			t.Errorf("%s: there is no such object", name)
			continue
		}
		_, message, err := argoHealth(checks[object.GetKind()], object)
		if err != nil || !strings.Contains(message, words) {
			t.Errorf("%s: %q, %v; wanted %q in it", name, message, err, words)
		}
	}
}

// A status that is half there must not break a check: then nobody knows.
func TestNothingIsHealthyThatIsHalfWritten(t *testing.T) {
	for kind, script := range luaChecks(t) {
		for _, half := range []string{`{}`, `{"observedGeneration": -1}`, `{"observedGeneration": 1}`, `{"observedGeneration": 1, "conditions": []}`} {
			object := &unstructured.Unstructured{}
			text := fmt.Sprintf(`{"apiVersion": "bos.hpe.com/v1alpha1", "kind": %q, "metadata": {"name": "half", "generation": 1}, "spec": {}, "status": %s}`, kind, half)
			if err := object.UnmarshalJSON([]byte(text)); err != nil {
				t.Fatal(err)
			}
			health, _, err := argoHealth(script, object)
			driven := kind == "BootComponent" && strings.Contains(half, "1,") || kind == "BootComponent" && half == `{"observedGeneration": 1}`
			if err != nil || health != "Progressing" && !driven {
				t.Errorf("%s with status %s: %s, %v", kind, half, health, err)
			}
		}
	}
}

// --- Argo CD

const healthKey = "resource.customizations.health.bos.hpe.com_"

// The checks of argocd-cm, by kind.
func luaChecks(t *testing.T) map[string]string {
	t.Helper()
	var configMap struct{ Data map[string]string }
	read(t, "argocd/argocd-cm.yaml", &configMap)
	checks := map[string]string{}
	for key, script := range configMap.Data {
		if kind, ok := strings.CutPrefix(key, healthKey); ok {
			checks[kind] = script
			continue
		}
		if !strings.HasPrefix(key, "resource.customizations.ignoreDifferences.bos.hpe.com_") {
			t.Errorf("argocd-cm: %s is not ours to set", key)
		}
		var rules struct {
			ManagedFieldsManagers []string `json:"managedFieldsManagers"`
		}
		if err := yaml.UnmarshalStrict([]byte(script), &rules); err != nil || len(rules.ManagedFieldsManagers) == 0 {
			t.Errorf("argocd-cm: %s: %v", key, err)
		}
	}
	if len(checks) != 4 {
		t.Fatalf("argocd-cm has checks of %d kinds, not of four", len(checks))
	}
	return checks
}

// argoHealth runs a check as Argo CD does: base, table and nothing else but a time-limited look at the object.
func argoHealth(script string, object *unstructured.Unstructured) (health, message string, err error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		call := lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return "", "", err
		}
	}
	limited, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limited)
	state.SetGlobal("obj", luaValue(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("the check gives %s and no table", state.Get(-1).Type())
	}
	health, message = table.RawGetString("status").String(), table.RawGetString("message").String()
	switch health {
	case "Unknown", "Progressing", "Suspended", "Healthy", "Degraded", "Missing":
		return health, message, nil
	}
	return health, message, fmt.Errorf("Argo CD knows no health %q", health)
}

func luaValue(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case int64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(luaValue(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, item := range value {
			table.RawSetString(key, luaValue(state, item))
		}
		return table
	}
	return lua.LNil
}

// --- Flux

// The expressions for one kind.
type fluxCheck struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	InProgress string `json:"inProgress"`
	Failed     string `json:"failed"`
	Current    string `json:"current"`
}

func fluxChecks(t *testing.T) map[string]fluxCheck {
	t.Helper()
	text, err := os.ReadFile(manifests + "flux/boot.yaml")
	if err != nil {
		t.Fatal(err)
	}
	checks := map[string]fluxCheck{}
	for _, document := range strings.Split(string(text), "\n---\n") {
		var kustomization struct {
			Kind string
			Spec struct {
				Wait             bool        `json:"wait"`
				HealthCheckExprs []fluxCheck `json:"healthCheckExprs"`
			}
		}
		if err := yaml.Unmarshal([]byte(document), &kustomization); err != nil {
			t.Fatal(err)
		}
		// Without it the expressions are not looked at.
		if kustomization.Kind != "Kustomization" || !kustomization.Spec.Wait {
			t.Errorf("flux/boot.yaml: a %s that waits: %t", kustomization.Kind, kustomization.Spec.Wait)
		}
		for _, check := range kustomization.Spec.HealthCheckExprs {
			if check.APIVersion != "bos.hpe.com/v1alpha1" || check.Current == "" {
				t.Errorf("flux/boot.yaml: %+v", check)
			}
			checks[check.Kind] = check
		}
	}
	if len(checks) != 3 {
		t.Fatalf("flux/boot.yaml has expressions for %d kinds, not for three", len(checks))
	}
	return checks
}

// evaluate goes by Flux's RFC 0009: a generation that was not looked at is in progress; then the expressions, in this order; in progress
// where none holds.
func (check fluxCheck) evaluate(object *unstructured.Unstructured) (string, error) {
	seen, ok, err := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	if err == nil && ok && seen != object.GetGeneration() {
		return "InProgress", nil
	}
	for _, step := range []struct{ expression, health string }{
		{check.InProgress, "InProgress"}, {check.Failed, "Failed"}, {check.Current, "Current"},
	} {
		if step.expression == "" {
			continue
		}
		holds, err := evaluate(step.expression, object.Object)
		if err != nil {
			return "", fmt.Errorf("%s: %w", step.expression, err)
		}
		if holds {
			return step.health, nil
		}
	}
	return "InProgress", nil
}

// evaluate parses without declarations and evaluates with the fields of the object as variables, as Flux does.
func evaluate(expression string, object map[string]any) (bool, error) {
	env, err := cel.NewEnv(cel.HomogeneousAggregateLiterals(), cel.EagerlyValidateDeclarations(true), cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true), cel.OptionalTypes(), ext.Strings(), ext.Sets(), ext.Encoders())
	if err != nil {
		return false, err
	}
	parsed, issues := env.Parse(expression)
	if issues != nil && issues.Err() != nil {
		return false, issues.Err()
	}
	program, err := env.Program(parsed, cel.EvalOptions(cel.OptOptimize), cel.InterruptCheckFrequency(100))
	if err != nil {
		return false, err
	}
	result, _, err := program.Eval(object)
	if err != nil {
		return false, err
	}
	holds, err := result.ConvertToNative(reflect.TypeOf(true))
	if err != nil {
		return false, err
	}
	return holds.(bool), nil
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(manifests + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
