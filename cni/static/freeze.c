/* freeze SCRIPT ARGUMENT...: run a Python script, with a Python that has no library.
 *
 * Linked with the libpython that the plugin is linked with: what the script compiles is by
 * construction for the very version that runs it. Nothing of the machine goes into the code, so
 * the same sources give the same bytes.
 */
#include <Python.h>
#include <stdio.h>

extern PyObject *PyInit_posix(void), *PyInit__ast(void), *PyMarshal_Init(void);
extern PyObject *PyInit__thread(void), *PyInit__weakref(void), *PyInit__imp(void);
extern PyObject *_PyWarnings_Init(void);

/* CPython's own table (config.o of libpython) would link expat, zlib and each module there is. */
struct _inittab _PyImport_Inittab[] = {
    /* the script's */
    {"posix", PyInit_posix},
    {"_ast", PyInit__ast},
    {"marshal", PyMarshal_Init},
    /* importlib's */
    {"_thread", PyInit__thread},
    {"_weakref", PyInit__weakref},
    {"_warnings", _PyWarnings_Init},
    {"_imp", PyInit__imp},
    /* made by the interpreter itself */
    {"builtins", NULL},
    {"sys", NULL},
    {NULL, NULL},
};

int main(int count, char **argument)
{
    PyConfig config;
    FILE *script = count > 1 ? fopen(argument[1], "r") : NULL;
    if (!script)
        return 2;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.use_hash_seed = 1; /* sets in code are written in the order of their hashes */
    config._init_main = 0;    /* compiling needs no standard library */
    if (PyStatus_Exception(Py_InitializeFromConfig(&config)))
        return 2;
    PyObject *arguments = PyList_New(0);
    for (int i = 1; arguments && i < count; i++)
        PyList_Append(arguments, PyUnicode_FromString(argument[i]));
    PySys_SetObject("argv", arguments);
    PyObject *main = PyModule_GetDict(PyImport_AddModule("__main__"));
    if (PyRun_File(script, argument[1], Py_file_input, main, main))
        return 0;
    PyErr_Print(); /* ends the process for a SystemExit */
    return 1;
}
