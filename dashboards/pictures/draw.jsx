// Draw one dashboard from answers of a real Prometheus with the libraries that Grafana's own front end is made of.
// Time series, stat, bar gauge and table are Grafana's components; gauge, heatmap and state timeline are not published
// as libraries: those are drawn here, and say so.
import '@fontsource/inter/400.css'; // Grafana's font: widths are computed for it
import '@fontsource/inter/500.css';
import React, { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import {
  FieldType,
  Registry,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createTheme,
  dateTime,
  getFieldDisplayValues,
  getValueFormat,
  formattedValueToString,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const { dashboard, answers, range, width } = window.PICTURE;
const theme = createTheme({ colors: { mode: 'dark' } });
const timeZone = 'utc';
const timeRange = {
  from: dateTime(range.from * 1000),
  to: dateTime(range.to * 1000),
  raw: { from: dateTime(range.from * 1000), to: dateTime(range.to * 1000) },
};
const asWritten = (value) => value;

standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation: () => Promise.resolve(transformation),
  }))
);

const plainOptions = ['unit', 'min', 'max', 'decimals', 'mappings', 'thresholds', 'color', 'noValue'];
const customOptions = [
  'axisBorderShow', 'axisSoftMax', 'barWidthFactor', 'drawStyle', 'fillOpacity', 'lineInterpolation', 'lineStyle', 'lineWidth',
  'showPoints', 'stacking', 'align', 'cellOptions', 'filterable', 'inspect', 'width', 'axisPlacement', 'axisLabel',
  'barAlignment', 'gradientMode', 'spanNulls', 'pointSize', 'scaleDistribution', 'hideFrom', 'thresholdsStyle',
];
const fieldConfigRegistry = new Registry(() => [
  ...plainOptions.map((id) => option(id, id, false)),
  ...customOptions.map((path) => option(`custom.${path}`, path, true)),
]);

function option(id, path, isCustom) {
  return { id, path, isCustom, name: id, process: asWritten, shouldApply: () => true, override: () => null };
}

// Frames as Grafana's Prometheus data source makes them: one a series, or one a query for tables.
function framesOf(panel) {
  return panel.targets.flatMap((target, index) => {
    const series = answers[panel.id][index];
    return target.format === 'table' ? tableFrame(panel, target, series) : series.map((one) => seriesFrame(panel, target, one));
  });
}

function seriesFrame(panel, target, { metric, values }) {
  const legend = legendOf(target, metric);
  return toDataFrame({
    refId: target.refId,
    name: legend,
    fields: [
      {
        name: 'Time',
        type: FieldType.time,
        values: values.map(([seconds]) => seconds * 1000),
        config: { interval: (panel.step ?? range.step) * 1000 },
      },
      {
        name: 'Value',
        type: FieldType.number,
        labels: metric,
        values: values.map(([, value]) => Number(value)),
        config: { displayNameFromDS: legend },
      },
    ],
  });
}

function legendOf(target, metric) {
  if (target.legendFormat === '__auto') {
    return Object.values(metric).join(' ') || 'Value';
  }
  return target.legendFormat.replace(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? '');
}

function tableFrame(panel, target, series) {
  if (series.length === 0) {
    return [];
  }
  const labels = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))];
  const value = panel.targets.length > 1 ? `Value #${target.refId}` : 'Value';
  return [
    toDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: series.map(({ values }) => values.at(-1)[0] * 1000), config: {} },
        ...labels.map((name) => ({
          name,
          type: FieldType.string,
          values: series.map(({ metric }) => metric[name] ?? ''),
          config: { filterable: true },
        })),
        { name: value, type: FieldType.number, values: series.map(({ values }) => Number(values.at(-1)[1])), config: {} },
      ],
    }),
  ];
}

function withOverrides(panel, frames) {
  return applyFieldOverrides({
    data: frames,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry,
    replaceVariables: asWritten,
    theme,
    timeZone,
  });
}

function Panel({ panel, width, height }) {
  const frames = framesOf(panel);
  if (frames.length === 0) {
    return <Message text={panel.fieldConfig.defaults.noValue ?? 'No data'} />;
  }
  const Drawing = { timeseries: Series, stat: Stat, bargauge: Bars, table: Rows, gauge: Dial, heatmap: Heat,
    'state-timeline': States }[panel.type];
  return <Drawing panel={panel} frames={frames} width={width} height={height} />;
}

function Message({ text }) {
  return (
    <div style={{ display: 'grid', placeItems: 'center', height: '100%', color: theme.colors.text.secondary }}>{text}</div>
  );
}

function Series({ panel, frames, width, height }) {
  return (
    <TimeSeries
      frames={withOverrides(panel, frames)}
      width={width}
      height={height}
      timeRange={timeRange}
      timeZone={timeZone}
      legend={panel.options.legend}
      options={panel.options}
    />
  );
}

function displayed(panel, frames) {
  return getFieldDisplayValues({
    data: withOverrides(panel, frames),
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: asWritten,
    theme,
    timeZone,
  });
}

function Stat({ panel, frames, width, height }) {
  const values = displayed(panel, frames);
  return (
    <VizRepeater
      getValues={() => values}
      renderValue={({ value, width, height }) => (
        <BigValue
          value={value.display}
          width={width}
          height={height}
          theme={theme}
          colorMode={panel.options.colorMode}
          graphMode={panel.options.graphMode}
          justifyMode={panel.options.justifyMode}
          textMode={panel.options.textMode}
          count={values.length}
        />
      )}
      width={width}
      height={height}
      source={frames}
      renderCounter={0}
      orientation={panel.options.orientation}
      autoGrid
      itemSpacing={3}
    />
  );
}

function Bars({ panel, frames, width, height }) {
  const values = displayed(panel, frames);
  const { options } = panel;
  return (
    <VizRepeater
      getValues={() => values}
      getAlignmentFactors={(all) => ({
        text: all.map(({ display }) => formattedValueToString(display)).reduce(longer, ''),
        title: all.map(({ display }) => display.title ?? '').reduce(longer, ''),
      })}
      renderValue={({ value, width, height, alignmentFactors, orientation }) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          width={width}
          height={height}
          orientation={orientation}
          theme={theme}
          alignmentFactors={alignmentFactors}
          displayMode={options.displayMode}
          valueDisplayMode={options.valueMode}
          namePlacement={options.namePlacement}
          showUnfilled={options.showUnfilled}
          text={options.text}
        />
      )}
      width={width}
      height={height}
      source={frames}
      renderCounter={0}
      orientation={options.orientation}
      minVizWidth={options.minVizWidth}
      minVizHeight={options.minVizHeight}
      maxVizHeight={options.maxVizHeight}
      itemSpacing={10}
    />
  );
}

function longer(one, other) {
  return other.length > one.length ? other : one;
}

function Rows({ panel, frames, width, height }) {
  const [transformed, setTransformed] = useState();
  useEffect(() => {
    const subscription = transformDataFrame(panel.transformations, frames).subscribe(setTransformed);
    return () => subscription.unsubscribe();
  }, []);
  if (!transformed) {
    return null;
  }
  const shown = withOverrides(panel, transformed);
  cacheFieldDisplayNames(shown);
  return (
    <TableNG
      data={shown[0]}
      width={width}
      height={height}
      sortBy={panel.options.sortBy}
      cellHeight={panel.options.cellHeight}
      noHeader={!panel.options.showHeader}
      fieldConfig={panel.fieldConfig}
      enableVirtualization={false}
    />
  );
}

function Note() {
  return (
    <div style={{ position: 'absolute', bottom: 1, right: 6, fontSize: 10, color: theme.colors.text.disabled }}>
      not drawn by Grafana's component
    </div>
  );
}

function Dial({ panel, frames, width, height }) {
  const [{ display, field }] = displayed(panel, frames);
  const { min = 0, max = 1 } = field;
  const radius = Math.min(width / 2, height) * 0.8;
  const middle = [width / 2, height * 0.85];
  const share = Math.min(1, Math.max(0, (display.numeric - min) / (max - min)));
  const arc = (from, to, size) => {
    const point = (at) => [middle[0] - size * Math.cos(Math.PI * at), middle[1] - size * Math.sin(Math.PI * at)];
    return `M ${point(from)} A ${size} ${size} 0 0 1 ${point(to)}`;
  };
  const steps = panel.fieldConfig.defaults.thresholds.steps;
  const edges = steps.map(({ value }) => (value === null || value === -Infinity ? 0 : (value - min) / (max - min)));
  return (
    <svg width={width} height={height}>
      {steps.map(({ color }, index) => (
        <path key={index} d={arc(edges[index], edges[index + 1] ?? 1, radius)} fill="none" strokeWidth={4}
          stroke={theme.visualization.getColorByName(color)} />
      ))}
      <path d={arc(0, 1, radius * 0.82)} fill="none" strokeWidth={radius * 0.25} stroke={theme.colors.background.secondary} />
      {share > 0 && (
        <path d={arc(0, share, radius * 0.82)} fill="none" strokeWidth={radius * 0.25} stroke={display.color} />
      )}
      <text x={middle[0]} y={middle[1]} textAnchor="middle" fontSize={radius * 0.36} fill={display.color}>
        {formattedValueToString(display)}
      </text>
    </svg>
  );
}

const axis = { left: 120, bottom: 40, top: 6, right: 24 };

function Axis({ width, height }) {
  const ticks = Math.floor(width / 130);
  const inner = width - axis.left - axis.right;
  return [...Array(ticks + 1).keys()].map((tick) => (
    <text key={tick} x={axis.left + (inner * tick) / ticks} y={height - 22} textAnchor="middle" fontSize={11}
      fill={theme.colors.text.secondary}>
      {timeRange.from.clone().add(((range.to - range.from) * tick) / ticks, 'seconds').utc().format('HH:mm:ss')}
    </text>
  ));
}

function across(seconds, width) {
  return axis.left + ((seconds - range.from) / (range.to - range.from)) * (width - axis.left - axis.right);
}

function States({ panel, frames, width, height }) {
  const words = Object.assign({}, ...panel.fieldConfig.defaults.mappings.map(({ options }) => options));
  const tall = (height - axis.top - axis.bottom) / frames.length;
  return (
    <svg width={width} height={height}>
      {frames.map((frame, row) => {
        const [time, value] = frame.fields;
        const y = axis.top + row * tall;
        return (
          <g key={row}>
            <text x={axis.left - 8} y={y + tall / 2 + 4} textAnchor="end" fontSize={12} fill={theme.colors.text.primary}>
              {frame.name}
            </text>
            <rect x={axis.left} y={y + tall * 0.1} width={width - axis.left - axis.right} height={tall * 0.8}
              fill={theme.colors.background.secondary} />
            {time.values.map((at, index) => {
              const { color } = words[value.values[index]] ?? {};
              const from = across(at / 1000, width);
              return color && color !== 'transparent' ? (
                <rect key={index} x={from} y={y + tall * 0.1} height={tall * 0.8}
                  width={across(at / 1000 + (panel.step ?? range.step), width) - from + 0.5} fill={theme.visualization.getColorByName(color)} />
              ) : null;
            })}
          </g>
        );
      })}
      <Axis width={width} height={height} />
    </svg>
  );
}

function Heat({ panel, frames, width, height }) {
  const unit = getValueFormat(panel.options.yAxis.unit);
  const bucket = (frame) => (frame.fields[1].labels.le === '+Inf' ? Infinity : Number(frame.fields[1].labels.le));
  const sorted = [...frames].sort((one, other) => bucket(one) - bucket(other));
  const rows = sorted.map((frame, index) => ({
    le: bucket(frame),
    counts: frame.fields[1].values.map((value, at) => value - (sorted[index - 1]?.fields[1].values[at] ?? 0)),
    times: frame.fields[0].values,
  }));
  const used = rows.map(({ counts }) => counts.some((count) => count > 1e-9));
  const shown = rows.slice(Math.max(0, used.indexOf(true) - 1), used.lastIndexOf(true) + 2);
  const most = Math.max(...shown.flatMap(({ counts }) => counts));
  const tall = (height - axis.top - axis.bottom) / shown.length;
  return (
    <svg width={width} height={height}>
      {shown.map(({ le, counts, times }, row) => {
        const y = height - axis.bottom - (row + 1) * tall;
        return (
          <g key={row}>
            <text x={axis.left - 8} y={y + 4} textAnchor="end" fontSize={11} fill={theme.colors.text.secondary}>
              {le === Infinity ? '+Inf' : formattedValueToString(unit(le))}
            </text>
            {counts.map((count, index) => {
              const from = across(times[index] / 1000, width);
              return count > 1e-9 ? (
                <rect key={index} x={from} y={y} height={tall - 1} width={across(times[index] / 1000 + (panel.step ?? range.step), width) - from}
                  fill={`rgba(255, 152, 48, ${Math.sqrt(count / most)})`} />
              ) : null;
            })}
          </g>
        );
      })}
      <Axis width={width} height={height} />
    </svg>
  );
}

// Grafana's grid: 24 columns, 30 px a row, 8 px between.
const gap = 8;
const column = (width - 2 * gap + gap) / 24;

function Placed({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const place = { position: 'absolute', left: gap + x * column, top: 56 + y * (30 + gap) };
  if (panel.type === 'row') {
    return <div style={{ ...place, fontSize: 16, fontWeight: 500, lineHeight: '30px' }}>{panel.collapsed ? '›' : '⌄'} {panel.title}</div>;
  }
  const size = { width: w * column - gap, height: h * (30 + gap) - gap };
  const replaced = ['gauge', 'heatmap', 'state-timeline'].includes(panel.type);
  return (
    <div style={{ ...place, ...size }}>
      <PanelChrome title={panel.title} {...size}>
        {(innerWidth, innerHeight) => <Panel panel={panel} width={innerWidth} height={innerHeight} />}
      </PanelChrome>
      {replaced && <Note />}
    </div>
  );
}

function Picture() {
  const bottom = Math.max(...dashboard.panels.map(({ gridPos: { y, h } }) => y + h));
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: 'relative', width, height: 56 + bottom * (30 + gap) + gap, background: theme.colors.background.canvas, color: theme.colors.text.primary }}>
        <div style={{ padding: '12px 16px', fontSize: 20 }}>
          {dashboard.title}
          {dashboard.templating.list.map(({ label, current }) => (
            <span key={label} style={{ fontSize: 12, marginLeft: 20, color: theme.colors.text.secondary }}>
              {label} <b style={{ color: theme.colors.text.primary }}>{current?.text ?? window.PICTURE.chosen[label]}</b>
            </span>
          ))}
        </div>
        {dashboard.panels.map((panel) => (
          <Placed key={panel.id} panel={panel} />
        ))}
      </div>
    </ThemeContext.Provider>
  );
}

Promise.allSettled([initPluginTranslations('grafana'), document.fonts.load('14px Inter'), document.fonts.load('500 14px Inter')]).then(() => {
  createRoot(document.getElementById('picture')).render(<Picture />);
});
