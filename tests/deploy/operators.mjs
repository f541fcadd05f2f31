// Judges objects of operators (JSON on stdin) by the schemas of their custom resources.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const packages = pathToFileURL(`${process.argv[2]}/@kubernetes-models/`);
const files = {
  ServiceMonitor: "prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor.js",
  ScaledObject: "keda/keda.sh/v1alpha1/ScaledObject.js",
};

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const models = await import(new URL(files[object.kind], packages));
  // Some of these packages are still CommonJS.
  const Kind = models[object.kind] ?? models.default[object.kind];
  new Kind(object).validate();
}
