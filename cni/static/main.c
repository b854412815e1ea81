/* The plugin as one file: starts CPython, which is linked in, and runs the frozen cni/plugin.py.
 *
 * Two ways to start it, chosen at build (tools/build-plugin, docs/adr/0023):
 *   INIT=public  Py_InitializeFromConfig, as CPython documents it. The default.
 *   INIT=core    the first half of it: a private field of PyConfig. No sys.stdout and no codecs;
 *                the plugin uses neither.
 *
 * Nothing of the machine is read: no environment (isolated), no site, no path, no time zone, no
 * locale. What goes wrong here is told on stdout, where a runtime looks for it. The modules are in
 * what freeze.py makes.
 */
#include <Python.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* Say what neither the plugin nor its daemon could, as the CNI specification wants it. The code is
 * Go plugins' own for what is internal. */
static int fail(const char *where, const char *what)
{
    printf("{\"cniVersion\":\"1.0.0\",\"code\":999,\"msg\":\"enid-cni: %s: %s\",\"details\":\"\"}",
           where, what);
    fflush(stdout);
    _exit(1);
}

static void must(PyStatus status)
{
    if (PyStatus_Exception(status))
        fail("Python does not start", status.err_msg ? status.err_msg : "no reason given");
}

static void start(void)
{
    PyPreConfig early;
    PyPreConfig_InitIsolatedConfig(&early);
    early.utf8_mode = 1;
    early.configure_locale = 0;
    must(Py_PreInitialize(&early));

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.install_signal_handlers = 0;
    config.pathconfig_warnings = 0;
    config.write_bytecode = 0;
    config.buffered_stdio = 0;
    config.use_hash_seed = 1; /* 0: whoever calls us is root, and no dict here is big */
    config.module_search_paths_set = 1; /* none */
    /* Given, so that Python does not look for them. */
    wchar_t **const paths[] = {
        &config.prefix, &config.base_prefix, &config.exec_prefix, &config.base_exec_prefix,
        &config.executable, &config.base_executable, &config.home, &config.stdlib_dir,
        &config.platlibdir, &config.program_name,
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        must(PyConfig_SetString(&config, paths[i], L"/"));
#ifdef ENID_CORE
    config._init_main = 0;
#endif
    must(Py_InitializeFromConfig(&config));
    PyGC_Disable(); /* one verb makes too little garbage to look for */
}

/* Three functions that do nothing, in the place of CPython's (the linker's --wrap). */

/* `_socket` gives names to 500 numbers with it. */
int __wrap_PyModule_AddIntConstant(PyObject *module, const char *name, long value)
{
    (void)module;
    (void)name;
    (void)value;
    return 0;
}

/* It runs a script that finds out what start() has set. */
PyStatus __wrap__PyConfig_InitPathConfig(PyConfig *config, int compute)
{
    (void)config;
    (void)compute;
    return PyStatus_Ok();
}

/* The one garbage collection of a start, which comes before PyGC_Disable can be called. */
void __wrap__Py_RunGC(PyThreadState *thread)
{
    (void)thread;
}

/* Tell which exception left the plugin: its name on stdout, the rest on stderr. */
static int tell(void)
{
    PyObject *raised = PyErr_GetRaisedException();
    const char *name = raised ? Py_TYPE(raised)->tp_name : "the plugin returned";
    if (raised) {
        PyErr_SetRaisedException(Py_NewRef(raised));
        PyErr_Print();
    }
    return fail("no answer", name);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as Python itself does: a daemon that hangs up is an error, no end */
    start();
    PyImport_ImportFrozenModule("__main__"); /* does not come back: the plugin ends by _exit */
    return tell();
}
