/* The modules that are built in: what the plugin imports, and what starting Python imports.
 *
 * CPython's own table (config.o of libpython) would link expat, zlib and each module there is.
 * Two modules are not CPython's: with nothing to import from files, what finds modules in files
 * and archives is left out. importlib asks builtin modules first, so these stand in for
 * `_frozen_importlib_external` and `zipimport`: a quarter of a start, and no way for a file on
 * the node to become code that root runs.
 */
#include <Python.h>

static PyObject *install(PyObject *self, PyObject *importlib)
{
    (void)self;
    (void)importlib;
    Py_RETURN_NONE;
}

static PyMethodDef external_functions[] = {{"_install", install, METH_O, NULL}, {0}};
static PyModuleDef external = {
    PyModuleDef_HEAD_INIT, .m_name = "_frozen_importlib_external", .m_methods = external_functions,
};
static PyModuleDef zip = {PyModuleDef_HEAD_INIT, .m_name = "zipimport"};

static PyObject *init_external(void) { return PyModuleDef_Init(&external); }
static PyObject *init_zip(void) { return PyModuleDef_Init(&zip); }

extern PyObject *PyInit_posix(void), *PyInit__socket(void), *PyInit_time(void);
extern PyObject *PyInit__codecs(void), *PyInit__io(void), *PyInit__thread(void);
extern PyObject *PyInit__weakref(void), *PyInit__imp(void), *PyMarshal_Init(void);
extern PyObject *_PyWarnings_Init(void);

struct _inittab _PyImport_Inittab[] = {
    /* the plugin's */
    {"posix", PyInit_posix},
    {"_socket", PyInit__socket},
    {"time", PyInit_time},
    /* importlib's, and standard output's */
    {"_thread", PyInit__thread},
    {"_weakref", PyInit__weakref},
    {"_warnings", _PyWarnings_Init},
    {"_imp", PyInit__imp},
    {"marshal", PyMarshal_Init},
    {"_codecs", PyInit__codecs},
    {"_io", PyInit__io},
    {"_frozen_importlib_external", init_external},
    {"zipimport", init_zip},
    /* made by the interpreter itself */
    {"builtins", NULL},
    {"sys", NULL},
    {NULL, NULL},
};
