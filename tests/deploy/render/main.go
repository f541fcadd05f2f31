// Renders a Helm chart with the libraries that Helm itself renders with (text/template, sprig,
// sigs.k8s.io/yaml) and what Helm adds to them: for machines that cannot have `helm`.
//
//	render [-namespace NS] [-values FILE]... RELEASE CHART
//
// It prints a JSON object: for each template what came out of it. No subcharts, no cluster.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

type table = map[string]interface{}

type files []string

func (f *files) String() string     { return strings.Join(*f, ",") }
func (f *files) Set(s string) error { *f = append(*f, s); return nil }

func main() {
	var values files
	namespace := flag.String("namespace", "default", "of the release")
	flag.Var(&values, "values", "a file of values; of several the later are the stronger")
	flag.Parse()
	out, err := render(flag.Arg(0), *namespace, flag.Arg(1), values)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
}

func render(release, namespace, chart string, extra []string) (map[string]string, error) {
	about, err := read(filepath.Join(chart, "Chart.yaml"))
	if err != nil {
		return nil, err
	}
	given := table{}
	for _, file := range append([]string{filepath.Join(chart, "values.yaml")}, extra...) {
		more, err := read(file)
		if err != nil {
			return nil, err
		}
		given = merged(given, more)
	}
	names, err := templates(chart)
	if err != nil {
		return nil, err
	}
	root := template.New("chart").Option("missingkey=zero")
	root.Funcs(functions(root))
	for name, text := range names {
		if _, err := root.New(name).Parse(text); err != nil {
			return nil, err
		}
	}
	// Helm gives the fields of Chart.yaml with a capital.
	capital := table{}
	for key, value := range about {
		capital[strings.ToUpper(key[:1])+key[1:]] = value
	}
	out := map[string]string{}
	for name := range names {
		base := filepath.Base(name)
		if strings.HasPrefix(base, "_") {
			continue
		}
		context := table{
			"Values": given,
			"Chart":  capital,
			"Release": table{
				"Name": release, "Namespace": namespace, "Service": "Helm",
				"Revision": 1, "IsInstall": true, "IsUpgrade": false,
			},
			"Template": table{"Name": name},
		}
		var text bytes.Buffer
		if err := root.ExecuteTemplate(&text, name, context); err != nil {
			return nil, err
		}
		out[name] = strings.ReplaceAll(text.String(), "<no value>", "")
	}
	return out, nil
}

// What Helm has beyond sprig, as far as charts of one piece use it.
func functions(root *template.Template) template.FuncMap {
	known := sprig.TxtFuncMap()
	delete(known, "env")
	delete(known, "expandenv")
	run := func(name string, context interface{}) (string, error) {
		var text bytes.Buffer
		err := root.ExecuteTemplate(&text, name, context)
		return text.String(), err
	}
	known["include"] = run
	known["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, errors.New(message)
		}
		return value, nil
	}
	known["toYaml"] = func(value interface{}) (string, error) {
		text, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(text), "\n"), err
	}
	known["fromYaml"] = func(text string) (table, error) {
		value := table{}
		return value, yaml.Unmarshal([]byte(text), &value)
	}
	return known
}

func templates(chart string) (map[string]string, error) {
	found := map[string]string{}
	root := filepath.Join(chart, "templates")
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(filepath.Dir(chart), path)
		found[name] = string(text)
		return err
	})
	return found, err
}

func read(file string) (table, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	values := table{}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return values, nil
}

// Tables are merged, everything else is replaced, null takes away, as Helm does.
func merged(under, over table) table {
	result := table{}
	for key, value := range under {
		result[key] = value
	}
	for key, value := range over {
		above, isTable := value.(table)
		below, wasTable := result[key].(table)
		switch {
		case value == nil:
			delete(result, key)
		case isTable && wasTable:
			result[key] = merged(below, above)
		default:
			result[key] = value
		}
	}
	return result
}
