// SPDX-License-Identifier: Apache-2.0
// A dashboard's panels by the components that Grafana draws them with: curves, figures, bars and tables. What only
// Grafana itself has (heat maps, node graphs) is a frame with its fields' names in it.
import {
  applyFieldOverrides, createTheme, dateTime, FieldType, getFieldDisplayValues,
  standardFieldConfigEditorRegistry, standardTransformersRegistry, toDataFrame,
  transformDataFrame, ThemeContext, FieldConfigOptionsRegistry,
} from "@grafana/data";
import { BarGauge, BigValue, Table, TimeSeries, VizRepeater } from "@grafana/ui";
import "uplot/dist/uPlot.min.css";
import { createRoot } from "react-dom/client";
import { standardTransformers } from "@grafana/data";
import { lastValueFrom } from "rxjs";

// What overrides may set: that list is Grafana's own too, but not in its packages.
const item = (id, isCustom) => ({ id: isCustom ? `custom.${id}` : id, path: id, name: id, isCustom, process: (value) => value,
  shouldApply: () => true, override: () => null, editor: () => null });
const known = () => [
  ...["unit", "min", "max", "decimals", "displayName", "noValue", "color", "thresholds", "mappings", "links"].map((id) => item(id, false)),
  ...["cellOptions", "hidden", "width"].map((id) => item(id, true)),
];
standardFieldConfigEditorRegistry.setInit(known);
const transformers = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
standardTransformersRegistry.setInit(() => [...transformers.values()].map((one) => ({
  id: one.id, name: one.name, transformation: one, editor: () => null,
})));
const theme = createTheme({ colors: { mode: new URLSearchParams(location.search).get("theme") ?? "light" } });
const registry = new FieldConfigOptionsRegistry(known);
const COLUMN = 50, ROW = 38, GAP = 8;

function legend(pattern, labels) {
  if (!pattern || pattern === "__auto") {
    return Object.entries(labels).map(([name, value]) => `${name}="${value}"`).join(", ");
  }
  return pattern.replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? "");
}

function curves(target, results) {
  return results.map(({ metric, values, value }) => {
    const points = values ?? [value];
    return toDataFrame({ refId: target.refId, fields: [
      { name: "Time", type: FieldType.time, values: points.map(([time]) => time * 1000), config: {} },
      { name: "Value", type: FieldType.number, values: points.map(([, text]) => Number(text)), labels: metric,
        config: { displayNameFromDS: legend(target.legendFormat, metric) || target.expr } },
    ] });
  });
}

function table(target, results, alone) {
  const labels = [...new Set(results.flatMap(({ metric }) => Object.keys(metric)))].sort();
  return toDataFrame({ refId: target.refId, fields: [
    { name: "Time", type: FieldType.time, values: results.map(({ value }) => value[0] * 1000), config: {} },
    ...labels.map((label) => ({ name: label, type: FieldType.string, config: { filterable: true },
      values: results.map(({ metric }) => metric[label] ?? "") })),
    { name: alone ? "Value" : `Value #${target.refId}`, type: FieldType.number, config: {},
      values: results.map(({ value }) => Number(value[1])) },
  ] });
}

async function frames(panel, results) {
  const found = panel.targets.flatMap((target) => {
    const own = results.find((one) => one.panel === panel.id && one.refId === target.refId).results;
    const data = own.find((series) => series.length) ?? [];
    return target.format === "table" ? [table(target, data, panel.targets.length === 1)] : curves(target, data);
  });
  const data = await lastValueFrom(transformDataFrame(panel.transformations ?? [], found));
  return applyFieldOverrides({ data, theme, fieldConfig: panel.fieldConfig, replaceVariables: (text) => text,
    fieldConfigRegistry: registry, timeZone: "utc" });
}

function Figure({ panel, data, width, height }) {
  const [value] = getFieldDisplayValues({ data, theme, fieldConfig: panel.fieldConfig, timeZone: "utc", sparkline: true,
    reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text });
  return <BigValue theme={theme} width={width} height={height} value={value.display} sparkline={value.sparkline}
    graphMode={panel.options.graphMode} colorMode={panel.options.colorMode} justifyMode="auto" textMode="auto" />;
}

function Bars({ panel, data, width, height }) {
  const values = getFieldDisplayValues({ data, theme, fieldConfig: panel.fieldConfig, timeZone: "utc",
    reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text });
  return <VizRepeater getValues={() => values} renderCounter={0} width={width} height={height} source={values}
    orientation="horizontal" minVizHeight={16} itemSpacing={6} autoGrid={false}
    renderValue={({ value, width, height }) => <BarGauge theme={theme} width={width} height={height} value={value.display}
      field={value.field} orientation="horizontal" displayMode="basic" display={value.view?.getFieldDisplayProcessor(value.colIndex)} />} />;
}

function Curves({ panel, data, width, height }) {
  const times = data.flatMap((frame) => frame.fields[0].values);
  const range = { from: dateTime(Math.min(...times)), to: dateTime(Math.max(...times)), raw: { from: "now-1h", to: "now" } };
  data.forEach((frame) => frame.fields.forEach((field) => { field.config.custom = { ...panel.fieldConfig.defaults.custom, ...field.config.custom }; }));
  return <TimeSeries frames={data} structureRev={1} timeRange={range} timeZone="utc" width={width} height={height}
    legend={panel.options.legend} tweakScale={(scale) => scale} tweakAxis={(axis) => axis}>{() => null}</TimeSeries>;
}

function Body({ panel, data, width, height }) {
  const filled = data.filter((frame) => frame.length);
  if (panel.type === "text") return <p>{panel.options.content}</p>;
  if (!filled.length) return <p className="none">{panel.fieldConfig?.defaults?.noValue ?? "No data"}</p>;
  if (panel.type === "stat") return <Figure panel={panel} data={filled} width={width} height={height} />;
  if (panel.type === "bargauge") return <Bars panel={panel} data={filled} width={width} height={height} />;
  if (panel.type === "timeseries") return <Curves panel={panel} data={filled} width={width} height={height} />;
  if (panel.type === "table") return <Table data={filled[0]} width={width - 16} height={height} initialSortBy={panel.options.sortBy} />;
  return <p className="none">{panel.type}: only Grafana draws it; fields {filled[0].fields.map((field) => field.name).join(", ")}</p>;
}

function Board({ board, panels }) {
  const bottom = Math.max(...board.panels.map(({ gridPos: at }) => at.y + at.h));
  return <main style={{ width: 24 * COLUMN, height: bottom * ROW, background: theme.colors.background.canvas }}>
    {board.panels.map((panel) => {
      const { x, y, w, h } = panel.gridPos;
      const place = { left: x * COLUMN, top: y * ROW, width: w * COLUMN - GAP, height: h * ROW - GAP };
      if (panel.type === "row") return <h2 key={panel.id} style={place}>{panel.title}</h2>;
      return <section key={panel.id} data-type={panel.type} style={{ ...place, background: theme.colors.background.primary }}>
        <h3 title={panel.description}>{panel.title}</h3>
        <Body panel={panel} data={panels.get(panel.id)} width={place.width - 16} height={place.height - 36} />
      </section>;
    })}
  </main>;
}

window.show = async (board, results) => {
  const panels = new Map();
  for (const panel of board.panels) if (panel.targets) panels.set(panel.id, await frames(panel, results));
  window.fields = Object.fromEntries([...panels].map(([id, data]) => [id, data.map((frame) => frame.fields.map((field) => field.name))]));
  createRoot(document.getElementById("root")).render(
    <ThemeContext.Provider value={theme}><Board board={board} panels={panels} /></ThemeContext.Provider>);
};
document.body.style.cssText = `margin: 0; font: 14px Inter, sans-serif; color: ${theme.colors.text.primary}; background: ${theme.colors.background.canvas}`;
const sheet = document.createElement("style");
sheet.textContent = "main{position:relative} main>*{position:absolute;box-sizing:border-box;overflow:hidden} section{padding:8px;border-radius:3px}"
  + " h2{margin:0;font-size:17px;padding:8px} h3{margin:0 0 6px;font-size:14px;font-weight:500} .none{text-align:center;color:gray}";
document.head.append(sheet);
