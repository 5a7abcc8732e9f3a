// Checks the layout of the page as it is shown now and returns what is wrong, one text each: it is
// wider than the window, text is cut off or covers other text, text has too little contrast, a
// control has no name.

const CONTRAST_MIN = 4.5; // WCAG 2.2, 1.4.3
const CONTRAST_LARGE_MIN = 3;
const SLACK_PX = 1.5;
const ARROW_PX = 24; // of a select

const complaints = [];
const list = document.getElementById("list"); // scrolls: what is below its end is hidden on purpose

function isVisible(element) {
    return element.checkVisibility({ visibilityProperty: true })
        && !element.closest(".skip:not(:focus), #list thead");
}

// Every element that has text of its own, with that text and its rectangles.
function texts() {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const text = node.data.trim();
        const element = node.parentElement;
        if (!text || element.closest("script, noscript, option") || !isVisible(element)) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        const rects = [...range.getClientRects()].filter(({ width, height }) => width && height);
        found.push({ element, text: text.slice(0, 40), rects });
    }
    return found;
}

function nameOf({ element, text }) {
    const place = element.closest("[id]")?.id ?? "page";
    return `#${place} <${element.tagName.toLowerCase()}> "${text}"`;
}

function checkWidth(all) {
    for (const scroller of [document.scrollingElement, list]) {
        const over = scroller.scrollWidth - scroller.clientWidth;
        if (over > SLACK_PX) complaints.push(`${over} px wider than #${scroller.id || "window"}`);
    }
    const right = document.documentElement.clientWidth + SLACK_PX;
    for (const text of all) {
        for (const rect of text.rects) {
            if (rect.left < -SLACK_PX || rect.right > right) {
                complaints.push(`outside the window: ${nameOf(text)}`);
            }
        }
    }
}

function checkClipping(all) {
    for (const text of all) {
        for (let box = text.element; box && box !== document.body; box = box.parentElement) {
            const { overflowX, overflowY } = getComputedStyle(box);
            const hides = [overflowX, overflowY].some((of) => of === "hidden" || of === "clip");
            const { left, right, top, bottom } = box.getBoundingClientRect();
            const cut = text.rects.some((rect) => rect.left < left - SLACK_PX
                || rect.right > right + SLACK_PX || rect.top < top - SLACK_PX
                || rect.bottom > bottom + SLACK_PX);
            if (hides && cut && box.namespaceURI === document.body.namespaceURI) {
                complaints.push(`cut off: ${nameOf(text)}`);
            }
        }
    }
}

// A closed select shows no text node; its longest option has to fit beside its arrow.
function checkSelects() {
    for (const select of document.querySelectorAll("select")) {
        const style = getComputedStyle(select);
        const canvas = document.createElement("canvas").getContext("2d");
        canvas.font = style.font;
        const widths = [...select.options].map(({ text }) => canvas.measureText(text).width);
        const free = select.clientWidth - parseFloat(style.paddingLeft) - ARROW_PX;
        if (Math.max(...widths) > free) complaints.push(`#${select.id} cuts off an option`);
    }
}

function checkOverlaps(all) {
    const free = all.filter(({ element }) => !list.contains(element));
    const boxes = free.flatMap((text) => text.rects.map((rect) => ({ text, rect })));
    boxes.sort((a, b) => a.rect.top - b.rect.top);
    boxes.forEach((a, at) => {
        for (const b of boxes.slice(at + 1)) {
            if (b.rect.top > a.rect.bottom - 3) break;
            const left = Math.max(a.rect.left, b.rect.left);
            const across = Math.min(a.rect.right, b.rect.right) - left;
            const down = Math.min(a.rect.bottom, b.rect.bottom) - b.rect.top;
            const inLine = a.text.element.contains(b.text.element)
                || b.text.element.contains(a.text.element);
            if (across > SLACK_PX && down > 4 && !inLine) {
                complaints.push(`${nameOf(a.text)} covers ${nameOf(b.text)}`);
            }
        }
    });
}

function colour(text) {
    const numbers = text.match(/[\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers[3] ?? 1 };
}

function over(front, back, alpha) {
    return front.map((part, at) => part * alpha + back[at] * (1 - alpha));
}

function backgroundOf(element) {
    if (!element) return [255, 255, 255];
    const { rgb, alpha } = colour(getComputedStyle(element).backgroundColor);
    return alpha === 1 ? rgb : over(rgb, backgroundOf(element.parentElement), alpha);
}

function luminance(rgb) {
    const [red, green, blue] = rgb.map((part) => {
        const share = part / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function checkContrast(all) {
    const seen = new Set();
    for (const text of all) {
        const style = getComputedStyle(text.element);
        const back = backgroundOf(text.element);
        const isSvg = text.element.namespaceURI !== document.body.namespaceURI;
        const { rgb, alpha } = colour(isSvg ? style.fill : style.color);
        const [a, b] = [luminance(over(rgb, back, alpha)), luminance(back)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const px = parseFloat(style.fontSize);
        const isLarge = px >= 24 || (px >= 18.66 && Number(style.fontWeight) >= 700);
        const words = `contrast ${ratio.toFixed(2)}: ${nameOf(text)}`;
        if (ratio < (isLarge ? CONTRAST_LARGE_MIN : CONTRAST_MIN) && !seen.has(words)) {
            seen.add(words);
            complaints.push(words);
        }
    }
}

function checkNames() {
    for (const control of document.querySelectorAll("a, button, input, select, [tabindex='0']")) {
        const by = control.getAttribute("aria-labelledby");
        const name = control.getAttribute("aria-label") || control.labels?.[0]?.textContent
            || (by && document.getElementById(by).textContent) || control.textContent;
        if (!name.trim()) complaints.push(`a control without a name: ${control.outerHTML}`);
    }
}

const all = texts();
checkWidth(all);
checkClipping(all);
checkSelects();
checkOverlaps(all);
checkContrast(all);
checkNames();
return complaints;
