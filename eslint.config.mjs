// For `npx eslint@10.15.0 javascript t2v_helpers`; no package needs to be installed beside it.
const browser = [
    "console", "crypto", "document", "Event", "fetch", "Image", "MutationObserver", "sessionStorage", "setTimeout", "window",
];
// What the tab's script finds in a WebUI; standalone.js brings the same to a page of its own.
const host = ["gradioApp", "onUiLoaded", "randomId", "requestProgress", "showSubmitButtons"];
const readonly = (names) => Object.fromEntries(names.map((name) => [name, "readonly"]));

export default [
    {
        files: ["**/*.js"],
        languageOptions: {ecmaVersion: 2021, sourceType: "script", globals: readonly(browser)},
        linterOptions: {reportUnusedDisableDirectives: "error"},
        rules: {
            "curly": ["error", "multi-line"],
            "eqeqeq": "error",
            "no-const-assign": "error",
            "no-dupe-args": "error",
            "no-dupe-keys": "error",
            "no-empty": "error",
            "no-eval": "error",
            "no-fallthrough": "error",
            "no-redeclare": "error",
            "no-self-compare": "error",
            "no-shadow": "error",
            "no-undef": "error",
            "no-unreachable": "error",
            "no-unsafe-optional-chaining": "error",
            "no-unused-vars": ["error", {vars: "local"}],
            "no-use-before-define": ["error", {functions: false}],
            "no-useless-return": "error",
            "no-var": "error",
            "object-shorthand": "error",
            "prefer-const": "error",
        },
    },
    {
        // A WebUI loads it beside the scripts of all other extensions.
        files: ["javascript/*.js"],
        languageOptions: {globals: readonly(host)},
        rules: {"no-implicit-globals": "error"},
    },
];
