// What on the page has too little contrast by WCAG 2.2 AA: words below 4.5 to 1; edges of controls
// and what charts draw below 3 to 1. With "focus": the ring around what has the focus instead.
(what) => {
  const rgba = (text) => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    throw new Error(`nothing behind ${element.outerHTML}`);
  };
  const ratio = (ink, paper) => {
    const [a, b] = [light(ink), light(paper)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const poor = [];
  const hold = (name, found, least) => {
    if (found < least) poor.push(`${name}: ${found.toFixed(2)}`);
  };
  const around = (element) => behind(element.parentElement);

  if (what === "focus") {
    const one = document.activeElement, style = getComputedStyle(one);
    if (one === document.body) return []; // between the last stop and the first
    if (style.outlineStyle !== "solid" || style.outlineWidth !== "3px") poor.push(`no ring: ${one.outerHTML}`);
    hold(one.outerHTML.slice(0, 60), ratio(rgba(style.outlineColor), around(one)), 3);
    return poor;
  }

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const words = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!words || !element.checkVisibility() || element.closest("[disabled], title")) continue;
    const style = getComputedStyle(element);
    const ink = rgba(element.closest("svg") ? style.fill : style.color);
    hold(words.slice(0, 30), ratio(ink, behind(element)), 4.5);
  }
  for (const one of document.querySelectorAll("button, .button, textarea, input")) {
    const style = getComputedStyle(one);
    const [r, g, b, a = 1] = rgba(style.borderTopColor);
    if (!one.checkVisibility() || one.matches("[disabled], [type=radio]") || a === 0) continue;
    hold(one.outerHTML.slice(0, 60), ratio([r, g, b], around(one)), 3);
  }
  const fills = "rect, circle", strokes = ".axis, .threshold, .whisker, .curve";
  for (const [drawn, ink] of [[fills, "fill"], [strokes, "stroke"]]) {
    for (const one of document.querySelectorAll(`.chart :is(${drawn})`)) {
      hold(`${ink} ${one.getAttribute("class")}`, ratio(rgba(getComputedStyle(one)[ink]), behind(one)), 3);
    }
  }
  return [...new Set(poor)];
}
