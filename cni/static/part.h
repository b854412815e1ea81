/* A part of one of CPython's modules in C: the functions and constants that are used, and no more.
 *
 * `posix` has 330 functions, 350 constants and a dozen types, and makes all of them when it is
 * imported. Here the functions are CPython's own, out of its table; constants are the system's.
 * What needs the rest of the module (its types: stat, scandir) is not for this.
 */
#include <Python.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct constant {
    const char *name;
    long value;
};

/* Put what os.environb wraps into a module. */
static int add_environ(PyObject *module)
{
    PyObject *found = PyDict_New();
    for (char **entry = environ; found && *entry; entry++) {
        const char *equals = strchr(*entry, '=');
        PyObject *key, *value;
        if (!equals)
            continue;
        key = PyBytes_FromStringAndSize(*entry, equals - *entry);
        value = PyBytes_FromString(equals + 1);
        if (!key || !value || !PyDict_SetDefault(found, key, value))
            return -1;
        Py_DECREF(key);
        Py_DECREF(value);
    }
    return found ? PyModule_Add(module, "environ", found) : -1;
}

/* Put one of *functions* into a module. */
static int add_function(PyObject *module, PyMethodDef *functions, const char *name)
{
    for (PyMethodDef *one = functions; one->ml_name; one++)
        if (!strcmp(one->ml_name, name))
            return PyModule_Add(module, name, PyCFunction_New(one, module));
    PyErr_Format(PyExc_ImportError, "there is no %s", name);
    return -1;
}

static int add_part(PyObject *module, PyObject *whole, const char *const *names,
                    const struct constant *constants)
{
    for (; *names; names++)
        if (strcmp(*names, "environ") ? add_function(module, ((PyModuleDef *)whole)->m_methods, *names)
                                      : add_environ(module))
            return -1;
    for (; constants->name; constants++)
        if (PyModule_Add(module, constants->name, PyLong_FromLong(constants->value)))
            return -1;
    return 0;
}

/* Define part_NAME, which makes a module of what names_NAME and constants_NAME say. */
#define PART(NAME) \
    extern PyObject *PyInit_##NAME(void); \
    static int execute_##NAME(PyObject *module) \
    { \
        return add_part(module, PyInit_##NAME(), names_##NAME, constants_##NAME); \
    } \
    static PyModuleDef_Slot slots_##NAME[] = {{Py_mod_exec, execute_##NAME}, {0, NULL}}; \
    static PyModuleDef definition_##NAME = { \
        PyModuleDef_HEAD_INIT, .m_name = #NAME, .m_slots = slots_##NAME, \
    }; \
    static PyObject *part_##NAME(void) { return PyModuleDef_Init(&definition_##NAME); }
